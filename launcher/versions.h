// Versions of dtrain and of the libraries that a run depends on.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace dtrain {

// (name, version): dtrain, its compiler, LibTorch, MPI. The same list on equal builds.
[[nodiscard]] std::vector<std::pair<std::string, std::string>> versions();

// Of all files of this process whose names hold `name` ("dtrain": the program and its libraries), a digest of the build
// ids that the linker gave them: equal for copies of one build. "" when none has one.
[[nodiscard]] std::string build_id(std::string_view name);

// For --version: one line each.
[[nodiscard]] std::string version_text();

}  // namespace dtrain
