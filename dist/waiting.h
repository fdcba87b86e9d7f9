// Waiting: the polite polling loop under every wait for another rank. It spins for a few microseconds, then yields,
// then sleeps up to half a millisecond at a time, so that compute threads on the same cores are not starved. Time in
// which this process was stopped does not count.
#pragma once

#include <cstdint>

#include "dist/awake_time.h"
#include "dist/host_comm.h"

namespace dtrain {

// Hints the processor that the thread is spinning.
inline void relax_processor() noexcept {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  __asm__ __volatile__("" ::: "memory");
#endif
}

class Waiting {
 public:
  Waiting(const HostComm& host, double deadline_seconds);
  // Waits a little. Throws PeerFailed when a rank has reported a failure; returns false once the deadline has passed.
  [[nodiscard]] bool pause();
  // The same checks without waiting, for loops that sleep by other means.
  [[nodiscard]] bool check();

 private:
  const HostComm& host_;
  double deadline_seconds_;
  AwakeTime awake_;
  std::uint32_t round_ = 0;
};

}  // namespace dtrain
