#include "dist/waiting.h"

#include <algorithm>
#include <cmath>
#include <ctime>

#include <sched.h>

namespace dtrain {
namespace {

constexpr std::uint32_t kSpinRounds = 200;
constexpr std::uint32_t kYieldRounds = 400;
constexpr std::int64_t kFirstSleepNanoseconds = 20'000;
constexpr std::int64_t kLongestSleepNanoseconds = 500'000;

}  // namespace

Waiting::Waiting(const HostComm& host, double deadline_seconds)
    : host_(host),
      // A year is as good as forever and cannot overflow the clock.
      end_(std::chrono::steady_clock::now() +
           std::chrono::nanoseconds(std::llround(std::clamp(deadline_seconds, 0.0, 3.2e7) * 1e9))) {}

bool Waiting::check() const {
  const ExitCode failure = host_.reported_failure();
  if (failure != ExitCode::kDone) throw PeerFailed(failure);
  return std::chrono::steady_clock::now() < end_;
}

bool Waiting::pause() {
  ++round_;
  if (round_ <= kSpinRounds) {
    relax_processor();
    return true;
  }
  if (round_ <= kYieldRounds) {
    sched_yield();
  } else {
    const std::int64_t sleep =
        std::min(kFirstSleepNanoseconds * (1 + (round_ - kYieldRounds) / 16), kLongestSleepNanoseconds);
    const timespec duration{0, sleep};
    nanosleep(&duration, nullptr);
  }
  return check();
}

}  // namespace dtrain
