// MetricSchedule: learning rates that follow a metric of the evaluations. reduce_lr_on_plateau has the arithmetic of
// torch.optim.lr_scheduler.ReduceLROnPlateau, greedy that of transformers.GreedyLR (arXiv 2512.14527): the rates rise
// after `patience` better values in a row and fall after `patience` others. Each parameter group has its own rate.
// Local; equal on all ranks as long as step() gets the same metric on all of them.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "trainer/models/safetensors.h"
#include "trainer/optim/lr_schedule.h"

namespace dtrain {

class MetricSchedule {
 public:
  virtual ~MetricSchedule() = default;

  // By parameter group.
  [[nodiscard]] const std::vector<double>& rates() const noexcept { return rates_; }
  // After an evaluation. NaN is never better.
  virtual void step(double metric) = 0;

  // Tensors "schedule.<name>.*", float64 and int64, for optimizer.safetensors: what goes on from them gives the same
  // bits.
  [[nodiscard]] NamedTensors state() const;
  // Rates are scaled where the peak has changed since. A checkpoint of a run with another schedule has no such tensors:
  // then nothing changes. Throws Error(kData) when tensors have another type or shape, or the number of groups differs.
  void load_state(const SafetensorsFile& file);

 protected:
  struct Options {
    bool greater = false;  // mode "max"
    double factor = 0;
    std::int64_t patience = 0;
    double threshold = 0;
    bool relative = false;  // threshold_mode "rel"
    std::int64_t cooldown = 0;
    double min_rate = 0;
    double epsilon = 0;  // smaller changes of a rate are not made
  };

  MetricSchedule(std::string name, std::vector<double> peaks, const Options& options);
  [[nodiscard]] bool is_better(double metric) const;
  void forget();  // best value and counters
  void lower_rates();

  // Greedy's, 0 and empty in the other.
  struct Counters {
    std::int64_t bad = 0;
    std::int64_t good = 0;
    std::int64_t cooldown = 0;
    std::int64_t warmup = 0;
    std::int64_t until_reset = 0;
  };

  std::string name_;
  std::vector<double> peaks_;
  std::vector<double> rates_;
  Options options_;
  double best_ = 0;
  Counters counters_;
  std::deque<double> window_;
  double window_sum_ = 0;
};

// Null for the schedules that follow the updates. Throws Error(kUsage) for wrong kwargs, and for a learning rate
// outside of the limits, where the schedule would do nothing.
[[nodiscard]] std::unique_ptr<MetricSchedule> make_metric_schedule(const ScheduleOptions& options,
                                                                   std::vector<double> peaks);

}  // namespace dtrain
