#include "trainer/callbacks/default_flow.h"

namespace dtrain {
namespace {

bool is_due(std::int64_t step, std::int64_t interval) { return interval > 0 && step % interval == 0; }

}  // namespace

void DefaultFlow::on_epoch_begin(const TrainerState&, TrainerControl& control) { control.should_epoch_stop = false; }

void DefaultFlow::on_step_begin(const TrainerState&, TrainerControl& control) {
  control.should_log = false;
  control.should_evaluate = false;
  control.should_save = false;
}

void DefaultFlow::on_step_end(const TrainerState& state, TrainerControl& control, const StepReport&) {
  const std::int64_t step = state.global_step;
  if (step == 1 && options_.logging_first_step) control.should_log = true;
  if (options_.logging_strategy == "steps" && is_due(step, state.logging_steps)) control.should_log = true;

  const bool may_evaluate = options_.eval_strategy == "steps" && options_.eval_delay <= static_cast<double>(step);
  if (may_evaluate && is_due(step, state.eval_steps)) control.should_evaluate = true;
  if (options_.save_strategy == "steps" && is_due(step, state.save_steps)) control.should_save = true;

  if (step >= state.max_steps) {
    control.should_training_stop = true;
    if (may_evaluate) control.should_evaluate = true;
    if (options_.save_strategy == "steps") control.should_save = true;
  }
}

void DefaultFlow::on_epoch_end(const TrainerState& state, TrainerControl& control) {
  if (options_.logging_strategy == "epoch") control.should_log = true;
  if (options_.eval_strategy == "epoch" && options_.eval_delay <= state.epoch) control.should_evaluate = true;
  if (options_.save_strategy == "epoch") control.should_save = true;
}

}  // namespace dtrain
