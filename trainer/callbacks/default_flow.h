// DefaultFlow: decides when to log, evaluate, save and stop, as transformers.DefaultFlowCallback does. Add it first.
// It also clears the flags of a step at on_step_begin and should_epoch_stop at on_epoch_begin, as the Trainer's handler
// does.
#pragma once

#include <string>

#include "trainer/callbacks/callback.h"

namespace dtrain {

struct FlowOptions {  // values of training.*_strategy: no, steps, epoch (save also: best, decided by the loop)
  std::string logging_strategy = "steps";
  std::string eval_strategy = "no";
  std::string save_strategy = "steps";
  bool logging_first_step = false;
  double eval_delay = 0;  // steps or epochs to wait, by eval_strategy
};

class DefaultFlow final : public Callback {
 public:
  explicit DefaultFlow(FlowOptions options) : options_(std::move(options)) {}

  void on_epoch_begin(const TrainerState& state, TrainerControl& control) override;
  void on_epoch_end(const TrainerState& state, TrainerControl& control) override;
  void on_step_begin(const TrainerState& state, TrainerControl& control) override;
  void on_step_end(const TrainerState& state, TrainerControl& control, const StepReport& report) override;

 private:
  FlowOptions options_;
};

}  // namespace dtrain
