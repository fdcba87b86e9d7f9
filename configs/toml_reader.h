// Reads TOML through the library toml++, with positions. Knows nothing of the settings themselves.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"

namespace dtrain {

struct RawSetting {
  std::string section;  // "" for a value outside of all sections
  std::string key;
  Json value;
  std::string where;  // "file:line:column", lines and columns from 1
};

struct RawSection {
  std::string name;
  std::string where;
};

struct RawSettings {
  std::vector<RawSection> sections;
  std::vector<RawSetting> settings;  // both in the order of the file
};

// Throws Error(kUsage) with file, line and column for anything that is not TOML 1.0 (invalid UTF-8, control characters,
// duplicate keys and tables included), and for more than 1 MiB, deep nesting, or dates, which no setting has.
[[nodiscard]] RawSettings read_toml(std::string_view bytes, const std::string& file_name);

// One TOML value; nothing when the text is not exactly one.
[[nodiscard]] std::optional<Json> parse_toml_value(std::string_view text);

}  // namespace dtrain
