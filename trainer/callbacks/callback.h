// Callback: code of its own that the training loop runs at the Trainer's events (names of
// transformers.TrainerCallback, all of them, fired in its order). All ranks fire the same events in the same order, one
// thread. A callback that writes checks state.is_world_process_zero, and one that sets a control flag must set it
// equally on all ranks: it may look only at what is equal on all of them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <memory>
#include <vector>

#include "core/json.h"
#include "trainer/checkpoint/trainer_state.h"
#include "trainer/step_spans.h"

namespace dtrain {

// What the loop knows about the step that has just ended. NaN: not known (not read back from the device).
struct StepReport {
  double loss = std::numeric_limits<double>::quiet_NaN();  // global mean of this step
  double grad_norm = std::numeric_limits<double>::quiet_NaN();
  double learning_rate = 0;         // the one this step used
  std::int64_t samples = 0;         // over all ranks, fillers not counted
  std::int64_t tokens = 0;          // over all ranks, without padding and fillers
  std::int64_t input_elements = 0;  // over all ranks, with padding
  StepSpans spans{};
};

class Callback {
 public:
  virtual ~Callback() = default;

  virtual void on_init_end(const TrainerState&, TrainerControl&) {}  // at the end of Trainer's constructor
  virtual void on_train_begin(const TrainerState&, TrainerControl&) {}
  virtual void on_train_end(const TrainerState&, TrainerControl&) {}
  virtual void on_epoch_begin(const TrainerState&, TrainerControl&) {}
  virtual void on_epoch_end(const TrainerState&, TrainerControl&) {}
  virtual void on_step_begin(const TrainerState&, TrainerControl&) {}
  // After each micro-batch of a step but the last.
  virtual void on_substep_end(const TrainerState&, TrainerControl&) {}
  // Gradients are summed over the ranks, and known to be finite; clipping is part of the optimizer's step. With float16
  // the two events are fired for a step that is skipped too.
  virtual void on_pre_optimizer_step(const TrainerState&, TrainerControl&) {}
  virtual void on_optimizer_step(const TrainerState&, TrainerControl&) {}
  // global_step and epoch have already advanced.
  virtual void on_step_end(const TrainerState&, TrainerControl&, const StepReport&) {}
  // `record` has the Trainer's keys in the Trainer's order and "step" last; it is already in state.log_history.
  virtual void on_log(const TrainerState&, TrainerControl&, const OrderedJson& /*record*/) {}
  // After each evaluation batch of this rank: `done` of `total`.
  virtual void on_prediction_step(const TrainerState&, TrainerControl&, std::int64_t /*done*/, std::int64_t /*total*/) {
  }
  // Before best_metric is updated, as in the Trainer.
  virtual void on_evaluate(const TrainerState&, TrainerControl&, const OrderedJson& /*metrics*/) {}
  // After Trainer::predict.
  virtual void on_predict(const TrainerState&, TrainerControl&, const OrderedJson& /*metrics*/) {}
  virtual void on_save(const TrainerState&, TrainerControl&, const std::filesystem::path& /*checkpoint*/) {}
  // Before files go to the Hub, on all ranks: before the on_save of a checkpoint whose files do, and at the end.
  virtual void on_push_begin(const TrainerState&, TrainerControl&) {}
};

// Calls its members in order of addition. The loop passes state and state.control.
class CallbackList final : public Callback {
 public:
  void add(std::shared_ptr<Callback> callback) { members_.push_back(std::move(callback)); }

  void on_init_end(const TrainerState& state, TrainerControl& control) override;
  void on_train_begin(const TrainerState& state, TrainerControl& control) override;
  void on_train_end(const TrainerState& state, TrainerControl& control) override;
  void on_epoch_begin(const TrainerState& state, TrainerControl& control) override;
  void on_epoch_end(const TrainerState& state, TrainerControl& control) override;
  void on_step_begin(const TrainerState& state, TrainerControl& control) override;
  void on_substep_end(const TrainerState& state, TrainerControl& control) override;
  void on_pre_optimizer_step(const TrainerState& state, TrainerControl& control) override;
  void on_optimizer_step(const TrainerState& state, TrainerControl& control) override;
  void on_step_end(const TrainerState& state, TrainerControl& control, const StepReport& report) override;
  void on_log(const TrainerState& state, TrainerControl& control, const OrderedJson& record) override;
  void on_prediction_step(const TrainerState& state, TrainerControl& control, std::int64_t done,
                          std::int64_t total) override;
  void on_evaluate(const TrainerState& state, TrainerControl& control, const OrderedJson& metrics) override;
  void on_predict(const TrainerState& state, TrainerControl& control, const OrderedJson& metrics) override;
  void on_save(const TrainerState& state, TrainerControl& control, const std::filesystem::path& checkpoint) override;
  void on_push_begin(const TrainerState& state, TrainerControl& control) override;

 private:
  std::vector<std::shared_ptr<Callback>> members_;
};

}  // namespace dtrain
