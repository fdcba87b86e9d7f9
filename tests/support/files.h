// Where a test finds files of the repository and of the build, and how it writes some.
#pragma once

#include <filesystem>
#include <string_view>

namespace dtrain::test {

// In the repository.
[[nodiscard]] std::filesystem::path source_path(std::string_view relative);
// In the repository's tests/data folder.
[[nodiscard]] std::filesystem::path test_data(std::string_view relative);
// In the build folder.
[[nodiscard]] std::filesystem::path build_path(std::string_view relative);

// Without syncing, unlike dtrain's own functions: some tests write tens of thousands of files.
void write_file(const std::filesystem::path& path, std::string_view bytes);

}  // namespace dtrain::test
