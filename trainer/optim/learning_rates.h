// LearningRates: the rate of each parameter group at each update, whatever the schedule: one that follows the number of
// updates scales each group's peak, one that follows a metric keeps a rate per group. Local; equal on all ranks as long
// as follow() gets the same metric on all of them.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "trainer/models/safetensors.h"
#include "trainer/optim/lr_schedule.h"
#include "trainer/optim/metric_schedule.h"

namespace dtrain {

class LearningRates {
 public:
  // `peaks`: by group; the first is that of all parameters without a group of their own. Throws Error(kUsage) for wrong
  // lr_scheduler_kwargs.
  LearningRates(const ScheduleOptions& options, std::vector<double> peaks);
  // A schedule of your own.
  LearningRates(LrSchedule schedule, std::vector<double> peaks)
      : peaks_(std::move(peaks)), by_updates_(std::move(schedule)) {}

  // Of the update after `finished_updates`.
  [[nodiscard]] std::vector<double> at(std::int64_t finished_updates) const;
  [[nodiscard]] bool follow_metric() const noexcept { return by_metric_ != nullptr; }
  // After an evaluation of the training: `metric` is metric_for_best_model's value.
  void follow(double metric);

  // For optimizer.safetensors: nothing for schedules of the number of updates. See MetricSchedule.
  [[nodiscard]] NamedTensors state() const;
  void load_state(const SafetensorsFile& file);

 private:
  std::vector<double> peaks_;
  std::unique_ptr<MetricSchedule> by_metric_;
  LrSchedule by_updates_;  // empty with by_metric_
};

}  // namespace dtrain
