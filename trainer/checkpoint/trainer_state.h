// TrainerState: what the Trainer knows about the run, with the fields and the file (trainer_state.json) of
// transformers.TrainerState. A plain value. dtrain writes it into each checkpoint and reads it back to resume.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"

namespace dtrain {

// What the loop does next. Callbacks set the flags, the loop clears each when it has acted on it.
struct TrainerControl {
  bool should_training_stop = false;
  bool should_epoch_stop = false;
  bool should_save = false;
  bool should_evaluate = false;
  bool should_log = false;
};

struct TrainerState {
  double epoch = 0;
  std::int64_t global_step = 0;
  std::int64_t max_steps = 0;
  std::int64_t num_train_epochs = 0;  // rounded up
  std::int64_t logging_steps = 500;   // these three: resolved, never a ratio
  std::int64_t eval_steps = 500;
  std::int64_t save_steps = 500;
  std::int64_t train_batch_size = 0;  // per device; 0: null in the file
  std::int64_t num_input_tokens_seen = 0;
  double total_flos = 0;
  std::optional<double> best_metric;
  std::optional<std::int64_t> best_global_step;
  std::optional<std::string> best_model_checkpoint;
  bool is_local_process_zero = true;
  bool is_world_process_zero = true;
  std::vector<OrderedJson> log_history;  // records as logged, each with "step" as its last key
  TrainerControl control;                // stateful_callbacks.TrainerControl of the file

  // Appends `record` with the current step and returns the record as stored.
  const OrderedJson& add_log(OrderedJson record);
};

// The text of trainer_state.json: keys sorted, indented by 2, newline at the end. Numbers that JSON cannot express
// (NaN, infinity) become null.
[[nodiscard]] std::string trainer_state_json(const TrainerState& state);
void write_trainer_state(const std::filesystem::path& path, const TrainerState& state);  // synced, not atomic

// Throws Error(kData) with file and key. Keys that dtrain does not know are ignored, missing ones keep their default,
// as files of other versions of transformers have others.
[[nodiscard]] TrainerState read_trainer_state(const std::filesystem::path& path);

}  // namespace dtrain
