#include "launcher/stop_signals.h"

#include <atomic>

#include "dist/watchdog.h"

namespace dtrain {
namespace {

std::atomic<int> last_signal{0};
static_assert(std::atomic<int>::is_always_lock_free, "a signal handler may touch lock-free atomics only");

void remember(int number) { last_signal.store(number, std::memory_order_relaxed); }
void dump(int /*number*/) { Watchdog::process().request_dump(); }

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
  struct sigaction quit = {};
  quit.sa_handler = dump;
  sigemptyset(&quit.sa_mask);
  quit.sa_flags = SA_RESTART;
  Watchdog::process();  // made here, not in the handler
  ::sigaction(SIGQUIT, &quit, &before_quit_);
}

StopSignals::~StopSignals() {
  for (std::size_t i = 0; i < kSignals.size(); ++i) ::sigaction(kSignals[i], &before_[i], nullptr);
  ::sigaction(SIGQUIT, &before_quit_, nullptr);
}

int StopSignals::received() noexcept { return last_signal.load(std::memory_order_relaxed); }

}  // namespace dtrain
