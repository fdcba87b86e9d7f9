// LogPrinter: one line per log record through log::info on rank 0:
//   step 50/125 loss 0.6123 grad_norm 2.13 lr 4.2e-05 epoch 0.40 | 5.3 samples/s
//   step 125/125 eval_loss 0.4312 eval_accuracy 0.8330 epoch 1.00 | 40.1 samples/s
#pragma once

#include <string>

#include "core/clock.h"
#include "trainer/callbacks/callback.h"

namespace dtrain {

class LogPrinter final : public Callback {
 public:
  void on_train_begin(const TrainerState& state, TrainerControl& control) override;
  void on_step_end(const TrainerState& state, TrainerControl& control, const StepReport& report) override;
  void on_log(const TrainerState& state, TrainerControl& control, const OrderedJson& record) override;
  void on_evaluate(const TrainerState& state, TrainerControl& control, const OrderedJson& metrics) override;
  void on_save(const TrainerState& state, TrainerControl& control, const std::filesystem::path& checkpoint) override;

 private:
  Stopwatch since_mark_;  // training time only: evaluation and saving restart it
  double seconds_ = 0;
  std::int64_t samples_ = 0;
};

// The line above; `samples_per_second` <= 0 leaves the rate out.
[[nodiscard]] std::string log_line(const TrainerState& state, const OrderedJson& record, double samples_per_second);

// All evaluations of `log_history` as a table, one row per evaluation, with the best one marked:
//   step  epoch  train loss  eval loss  accuracy      f1
//     63   1.00      0.5321     0.4410    0.8330  0.8328  best
// "" when nothing was evaluated.
[[nodiscard]] std::string results_table(const TrainerState& state);

}  // namespace dtrain
