// Versions of dtrain and of the libraries that a run depends on.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace dtrain {

// (name, version): dtrain, its compiler, LibTorch, MPI. The same list on equal builds.
[[nodiscard]] std::vector<std::pair<std::string, std::string>> versions();

// For --version: one line each.
[[nodiscard]] std::string version_text();

}  // namespace dtrain
