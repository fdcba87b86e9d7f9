// ProgressBar: on rank 0, one line on standard error that is redrawn in place on a terminal, and now and then a whole
// line where standard error is a file or a pipe. Log lines of the same process appear above the bar.
//   training     40% |########            | 50/125  loss 0.6123  lr 4.2e-05  2.31 it/s  left 0:32
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <mutex>
#include <string>
#include <string_view>

#include "core/clock.h"
#include "trainer/callbacks/callback.h"

namespace dtrain {

struct ProgressOptions {
  bool terminal = false;                             // standard error is a terminal: ask stderr_is_terminal()
  double redraw_seconds = 0.1;                       // on a terminal
  double line_seconds = 30;                          // elsewhere
  std::function<void(std::string_view)> write = {};  // where the text goes; empty: standard error
};

[[nodiscard]] bool stderr_is_terminal();

// Create it only where a bar is wanted (not with disable_tqdm); it is silent on ranks other than 0.
class ProgressBar final : public Callback {
 public:
  explicit ProgressBar(ProgressOptions options);
  ~ProgressBar() override;

  void on_train_begin(const TrainerState& state, TrainerControl& control) override;
  void on_step_end(const TrainerState& state, TrainerControl& control, const StepReport& report) override;
  void on_log(const TrainerState& state, TrainerControl& control, const OrderedJson& record) override;
  void on_prediction_step(const TrainerState& state, TrainerControl& control, std::int64_t done,
                          std::int64_t total) override;
  void on_evaluate(const TrainerState& state, TrainerControl& control, const OrderedJson& metrics) override;
  void on_train_end(const TrainerState& state, TrainerControl& control) override;

 private:
  void show(std::string text, bool now);
  void start();
  void finish();

  ProgressOptions options_;
  std::mutex mutex_;   // of the line on the terminal: log lines may come from other threads
  std::string shown_;  // what stands on it
  bool hidden_ = false;
  bool active_ = false;
  Stopwatch since_shown_;
  bool anything_shown_ = false;

  std::int64_t first_step_ = 0;
  Stopwatch since_begin_;
  double paused_seconds_ = 0;  // spent in evaluation, so not part of the rate
  bool evaluating_ = false;
  Stopwatch since_evaluation_;
  double loss_ = std::numeric_limits<double>::quiet_NaN();
};

// One picture of the bar; NaN or a negative value leaves a part out. `per_second` 0: no rate and no time left.
struct Progress {
  std::string_view label;
  std::int64_t done = 0;
  std::int64_t total = 0;
  double per_second = 0;
  double loss = std::numeric_limits<double>::quiet_NaN();
  double learning_rate = -1;
};
[[nodiscard]] std::string progress_text(const Progress& progress);

// "h:mm:ss", or "m:ss" below an hour.
[[nodiscard]] std::string format_duration(double seconds);

}  // namespace dtrain
