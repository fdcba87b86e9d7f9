// JSON through nlohmann-json, with errors in dtrain's own form. Include this, not the library, outside core/.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

namespace dtrain {

using Json = nlohmann::json;                 // keys sorted
using OrderedJson = nlohmann::ordered_json;  // keys in order of insertion

// Parses strict JSON; `where` (a path) starts the message of the Error(kData) that a defect throws.
[[nodiscard]] Json parse_json(std::string_view text, const std::string& where);
[[nodiscard]] Json read_json_file(const std::filesystem::path& path);

}  // namespace dtrain
