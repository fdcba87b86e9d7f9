// LrSchedule: the factor on the peak learning rate as a pure function of the number of finished updates.
// Names and formulas are those of transformers.optimization (get_scheduler). The two schedules that follow a metric are
// in metric_schedule.h.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "core/json.h"

namespace dtrain {

struct ScheduleOptions {
  std::string name = "linear";
  std::int64_t warmup_steps = 0;
  std::int64_t total_steps = 0;
  double learning_rate = 5e-5;   // polynomial needs the peak
  Json kwargs = Json::object();  // lr_scheduler_kwargs; a wrong key is Error(kUsage)
};

using LrSchedule = std::function<double(std::int64_t finished_updates)>;

[[nodiscard]] LrSchedule make_lr_schedule(const ScheduleOptions& options);

}  // namespace dtrain
