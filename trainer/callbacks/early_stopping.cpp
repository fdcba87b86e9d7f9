#include "trainer/callbacks/early_stopping.h"

#include <cmath>

#include "core/log.h"

namespace dtrain {

bool EarlyStopping::better(double value, double than) const {
  return options_.greater_is_better ? value > than : value < than;
}

void EarlyStopping::count(double value, const std::optional<double>& best) {
  const bool improved = !best || (better(value, *best) && std::abs(value - *best) > options_.threshold);
  without_improvement_ = improved ? 0 : without_improvement_ + 1;
}

void EarlyStopping::on_train_begin(const TrainerState& state, TrainerControl&) {
  without_improvement_ = 0;
  std::optional<double> best;
  for (const OrderedJson& record : state.log_history) {
    const auto found = record.find(options_.metric);
    if (found == record.end() || !found->is_number()) continue;
    const auto value = found->get<double>();
    count(value, best);
    // An evaluation before the first step is never the best one.
    const bool before_training = record.value("step", std::int64_t{0}) == 0;
    if (!before_training && (!best || better(value, *best))) best = value;
  }
}

void EarlyStopping::on_evaluate(const TrainerState& state, TrainerControl& control, const OrderedJson& metrics) {
  const auto found = metrics.find(options_.metric);
  if (found == metrics.end() || !found->is_number()) return;
  count(found->get<double>(), state.best_metric);
  if (without_improvement_ < options_.patience) return;
  if (state.is_world_process_zero) {
    log::info("stopping early after step {}: {} has not improved in {} evaluation{}", state.global_step,
              options_.metric, without_improvement_, without_improvement_ == 1 ? "" : "s");
  }
  control.should_training_stop = true;
}

}  // namespace dtrain
