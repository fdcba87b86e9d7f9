#include "trainer/optim/learning_rates.h"

#include <utility>

#include "core/error.h"

namespace dtrain {

LearningRates::LearningRates(const ScheduleOptions& options, std::vector<double> peaks)
    : peaks_(std::move(peaks)), by_metric_(make_metric_schedule(options, peaks_)) {
  if (!by_metric_) by_updates_ = make_lr_schedule(options);
}

std::vector<double> LearningRates::at(std::int64_t finished_updates) const {
  if (by_metric_) return by_metric_->rates();
  const double factor = by_updates_(finished_updates);
  std::vector<double> rates = peaks_;
  for (double& rate : rates) rate *= factor;
  return rates;
}

void LearningRates::follow(double metric) {
  DTRAIN_CHECK(by_metric_ != nullptr, "a metric for a schedule of the number of updates");
  by_metric_->step(metric);
}

NamedTensors LearningRates::state() const { return by_metric_ ? by_metric_->state() : NamedTensors(); }

void LearningRates::load_state(const SafetensorsFile& file) {
  if (by_metric_) by_metric_->load_state(file);
}

}  // namespace dtrain
