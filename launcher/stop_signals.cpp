#include "launcher/stop_signals.h"

#include <atomic>

namespace dtrain {
namespace {

std::atomic<int> last_signal{0};
static_assert(std::atomic<int>::is_always_lock_free, "a signal handler may touch lock-free atomics only");

void remember(int number) { last_signal.store(number, std::memory_order_relaxed); }

}  // namespace

StopSignals::StopSignals() {
  last_signal.store(0, std::memory_order_relaxed);
  for (std::size_t i = 0; i < kSignals.size(); ++i) {
    struct sigaction action = {};
    action.sa_handler = remember;
    sigemptyset(&action.sa_mask);
    // SA_RESETHAND: the second Ctrl-C has the default effect.
    action.sa_flags = SA_RESTART | (kSignals[i] == SIGINT ? SA_RESETHAND : 0);
    ::sigaction(kSignals[i], &action, &before_[i]);
  }
}

StopSignals::~StopSignals() {
  for (std::size_t i = 0; i < kSignals.size(); ++i) ::sigaction(kSignals[i], &before_[i], nullptr);
}

int StopSignals::received() noexcept { return last_signal.load(std::memory_order_relaxed); }

}  // namespace dtrain
