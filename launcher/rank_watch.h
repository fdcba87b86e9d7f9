// RankWatch: which ranks of a job on this machine were the first to go. A rank that is killed cannot say so, and mpirun
// ends the others a second later: in between somebody has to look.
#pragma once

#include <map>
#include <vector>

#include <sys/types.h>

namespace dtrain {

// The processes that `parent`'s main thread has started and that are still there; empty where the kernel does not tell.
[[nodiscard]] std::vector<pid_t> children_of(pid_t parent);

class RankWatch {
 public:
  // To be called several times a second with the process of mpirun. Local files of the kernel only.
  void look(pid_t mpirun);

  // The ranks that were gone while others were still there, lowest first; empty while all are, or if none was seen.
  [[nodiscard]] const std::vector<int>& first_gone() const noexcept { return first_gone_; }

 private:
  std::map<pid_t, int> ranks_;
  std::vector<int> first_gone_;
};

}  // namespace dtrain
