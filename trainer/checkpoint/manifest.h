// The manifest of a checkpoint: what it is of, and size and digest of each of its files. The last file to be written;
// what reads it is declared in checkpoint_store.h.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "core/json.h"

namespace dtrain {

inline constexpr std::string_view kManifestName = "manifest.json";

// Makes everything below `stage` durable and lists its files: name relative to `stage` -> size and digest. Throws
// Error(kIo).
[[nodiscard]] Json sync_and_list(const std::filesystem::path& stage);

// The bytes of a manifest with this content. They carry format, version and their own digest, and read_manifest() takes
// no other bytes for this content, so that no changed byte goes unnoticed.
[[nodiscard]] std::string manifest_text(Json content);

}  // namespace dtrain
