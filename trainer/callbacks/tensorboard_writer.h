// TensorboardWriter: what the Trainer's TensorBoardCallback logs, in event files that TensorBoard reads: every number
// of a log record under the Trainer's names (eval_loss: eval/loss, test_x: test/x, all others: train/...), and two
// texts: "args", the resolved settings, and "model_config". Rank 0 writes; each record reaches the file before on_log
// returns. Training does not depend on these files: when they cannot be written, one warning says so and they end.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "core/file.h"
#include "trainer/callbacks/callback.h"

namespace dtrain {

struct TensorboardOptions {
  std::filesystem::path runs;    // a run makes its folder <time>_<host> in here, a resumed one goes on in the newest
  std::filesystem::path folder;  // when not empty: this folder instead, whatever is in it
  std::string settings;          // the text "args", TOML
  std::string model_config;      // the text "model_config", JSON
};

class TensorboardWriter final : public Callback {
 public:
  explicit TensorboardWriter(TensorboardOptions options) : options_(std::move(options)) {}

  // Begins a file. In a resumed run it tells the reader to forget the steps that are done again.
  void on_train_begin(const TrainerState& state, TrainerControl& control) override;
  void on_log(const TrainerState& state, TrainerControl& control, const OrderedJson& record) override;
  void on_train_end(const TrainerState& state, TrainerControl& control) override;

 private:
  void begin_file(std::int64_t step);
  void write(std::string_view events);
  void give_up(const std::string& reason);

  TensorboardOptions options_;
  std::unique_ptr<OutputFile> file_;
  bool given_up_ = false;
};

// The Trainer's name for a key of a log record (rewrite_logs in transformers/integrations).
[[nodiscard]] std::string tensorboard_tag(std::string_view key);

}  // namespace dtrain
