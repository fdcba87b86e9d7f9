// StopSignals: while it lives, SIGINT, SIGTERM and SIGUSR2 do not end the process but are remembered, for the loop to
// ask. A second SIGINT ends the process at once. SIGQUIT has the watchdog write the flight recorder, and the run goes
// on. One object at a time; asking is safe from any thread.
#pragma once

#include <array>
#include <csignal>

namespace dtrain {

class StopSignals {
 public:
  StopSignals();
  ~StopSignals();  // restores what was before
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  // The last of the signals that has arrived, or 0.
  [[nodiscard]] static int received() noexcept;

 private:
  static constexpr std::array<int, 3> kSignals = {SIGINT, SIGTERM, SIGUSR2};
  std::array<struct sigaction, kSignals.size()> before_;
  struct sigaction before_quit_;
};

}  // namespace dtrain
