// The bytes of an input file, unpacked when its name ends in .gz. Files without LibTorch.
#pragma once

#include <filesystem>
#include <string>

namespace dtrain {

// Throws Error(kUsage) when the file is missing, Error(kIo) when it cannot be read, Error(kData) when a .gz file is
// damaged or cut off. A .gz file may have several members, as `cat a.gz b.gz` makes them.
[[nodiscard]] std::string read_source(const std::filesystem::path& path);

}  // namespace dtrain
