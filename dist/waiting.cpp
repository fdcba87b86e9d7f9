#include "dist/waiting.h"

#include <algorithm>
#include <ctime>

#include <sched.h>

namespace dtrain {
namespace {

constexpr std::uint32_t kSpinRounds = 200;
constexpr std::uint32_t kYieldRounds = 400;
constexpr std::int64_t kFirstSleepNanoseconds = 20'000;
constexpr std::int64_t kLongestSleepNanoseconds = 500'000;
constexpr double kLongestGapSeconds = 1;  // of a process that runs, between two checks

}  // namespace

Waiting::Waiting(const HostComm& host, double deadline_seconds)
    : host_(host), deadline_seconds_(deadline_seconds), awake_(monotonic_seconds(), kLongestGapSeconds) {}

bool Waiting::check() {
  const ExitCode failure = host_.reported_failure();
  if (failure != ExitCode::kDone) throw PeerFailed(failure);
  return awake_.advance(monotonic_seconds()) < deadline_seconds_;
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
