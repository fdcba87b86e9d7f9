#include "launcher/rank_watch.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <optional>
#include <string>
#include <string_view>

#include <fmt/format.h>

namespace dtrain {
namespace {

std::optional<int> rank_of(pid_t process) {
  constexpr std::string_view kName = "OMPI_COMM_WORLD_RANK=";
  std::ifstream environment(fmt::format("/proc/{}/environ", process));
  for (std::string entry; std::getline(environment, entry, '\0');) {
    if (!entry.starts_with(kName)) continue;
    int rank = -1;
    std::from_chars(entry.data() + kName.size(), entry.data() + entry.size(), rank);
    if (rank >= 0) return rank;
  }
  return std::nullopt;
}

bool is_alive(pid_t process) {
  std::ifstream file(fmt::format("/proc/{}/stat", process));
  std::string text;
  std::getline(file, text);
  // The name of the program, in brackets, may hold anything; the state follows it.
  const std::size_t bracket = text.rfind(')');
  return bracket != std::string::npos && bracket + 2 < text.size() && text[bracket + 2] != 'Z' &&
         text[bracket + 2] != 'X';
}

}  // namespace

std::vector<pid_t> children_of(pid_t parent) {
  std::vector<pid_t> children;
  std::ifstream file(fmt::format("/proc/{}/task/{}/children", parent, parent));
  for (pid_t child = 0; file >> child;) children.push_back(child);
  return children;
}

void RankWatch::look(pid_t mpirun) {
  if (!first_gone_.empty()) return;
  for (const pid_t child : children_of(mpirun)) {
    if (ranks_.contains(child)) continue;
    if (const std::optional<int> rank = rank_of(child)) ranks_.emplace(child, *rank);
  }
  std::vector<int> gone;
  for (const auto& [process, rank] : ranks_) {
    if (!is_alive(process)) gone.push_back(rank);
  }
  if (gone.size() == ranks_.size()) return;
  std::sort(gone.begin(), gone.end());
  first_gone_ = std::move(gone);
}

}  // namespace dtrain
