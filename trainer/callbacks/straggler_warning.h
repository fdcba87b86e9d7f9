// StragglerWarning: warns when one rank needs much longer for its own part of the steps than the others, which all wait
// for it. What counts is the time in which a rank did not wait itself (FlightRecorder::busy_seconds).
#pragma once

#include <cstddef>
#include <optional>
#include <set>
#include <span>
#include <vector>

#include "dist/host_comm.h"
#include "trainer/callbacks/callback.h"

namespace dtrain {

struct Straggler {
  int rank = 0;
  double seconds = 0;  // of its own, median step
  double others = 0;   // the median of the other ranks
};

// The rule. A rank is named when its median step took twice what the other ranks' did, and 2 ms more, in two windows of
// 15 steps one after the other; once. So a rank that is three times slower is named within 45 steps, and one slow step,
// or one slow dozen, is not. A plain value.
class StragglerRule {
 public:
  static constexpr std::size_t kWindow = 15;
  static constexpr double kRatio = 2;
  static constexpr double kLeastSeconds = 0.002;

  // Seconds of each rank in the next step; their number never changes.
  [[nodiscard]] std::optional<Straggler> add(std::span<const float> seconds);

 private:
  std::vector<std::vector<float>> window_;  // by rank
  std::optional<int> suspect_;              // of the last full window
  std::set<int> named_;
};

class StragglerWarning final : public Callback {
 public:
  // `host` outlives the object.
  explicit StragglerWarning(const HostComm& host) : host_(host) {}
  void on_step_end(const TrainerState& state, TrainerControl& control, const StepReport& report) override;

 private:
  const HostComm& host_;
  StragglerRule rule_;
};

}  // namespace dtrain
