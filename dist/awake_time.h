// AwakeTime: how long this process has been running, without the time in which it was stopped (SIGSTOP, a suspended
// machine). Deadlines are counted in it: a rank that was asleep itself must not accuse the others. A plain value.
#pragma once

#include <algorithm>

namespace dtrain {

class AwakeTime {
 public:
  // Between two looks at most `longest_gap` seconds count; what is longer was a stop.
  AwakeTime(double now, double longest_gap) : last_(now), longest_gap_(longest_gap) {}

  // Takes the time into account; `now` is monotonic seconds. Returns the seconds awake since the beginning.
  double advance(double now) {
    const double gap = now - last_;
    last_ = now;
    seconds_ += std::clamp(gap, 0.0, longest_gap_);
    asleep_ += std::max(0.0, gap - longest_gap_);
    return seconds_;
  }
  [[nodiscard]] double asleep() const { return asleep_; }

 private:
  double last_;
  double longest_gap_;
  double seconds_ = 0;
  double asleep_ = 0;
};

}  // namespace dtrain
