// FailureFlag: one word, shared by the ranks of a node, that says which rank failed first and with which exit code.
// Lives in memory shared between processes (or in ordinary memory for threads as ranks); all functions are lock-free.
#pragma once

#include <atomic>
#include <cstdint>

#include "core/error.h"

namespace dtrain {

class FailureFlag {
 public:
  // True when `rank` is the first to report.
  bool report(int rank, ExitCode code) noexcept {
    std::uint64_t none = 0;
    return word_.compare_exchange_strong(none, pack(rank, code));
  }
  [[nodiscard]] ExitCode code() const noexcept { return static_cast<ExitCode>(word_.load() & 0xffU); }
  // The rank that reported; -1 when none has.
  [[nodiscard]] int rank() const noexcept { return static_cast<int>(word_.load() >> 8U) - 1; }

 private:
  static std::uint64_t pack(int rank, ExitCode code) {
    return (static_cast<std::uint64_t>(rank + 1) << 8U) | (static_cast<std::uint64_t>(code) & 0xffU);
  }
  static_assert(std::atomic<std::uint64_t>::is_always_lock_free);
  std::atomic<std::uint64_t> word_{0};
};

}  // namespace dtrain
