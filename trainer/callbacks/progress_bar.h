// ProgressBar: on rank 0, one line on standard error that is redrawn in place on a terminal, and now and then a whole
// line where standard error is a file or a pipe. Log lines of the same process appear above the bar.
//   training   40%|########            | 50/125  loss 0.6123  lr 4.2e-05  2.31 it/s  left 0:32
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>

#include "core/clock.h"
#include "trainer/callbacks/callback.h"

namespace dtrain {

struct ProgressOptions {
  bool terminal = false;                        // standard error is a terminal: ask stderr_is_terminal()
  double redraw_seconds = 0.1;                  // on a terminal
  double line_seconds = 30;                     // elsewhere
  std::function<void(std::string_view)> write;  // empty: standard error
};

[[nodiscard]] bool stderr_is_terminal();

// Create it only where a bar is wanted (not with disable_tqdm); it is silent on ranks other than 0.
class ProgressBar final : public Callback {
 public:
  explicit ProgressBar(ProgressOptions options);
  ~ProgressBar() override;

  void on_train_begin(const TrainerState& state, TrainerControl& control) override;
  void on_step_end(const TrainerState& state, TrainerControl& control, const StepReport& report) override;
  void on_prediction_step(const TrainerState& state, TrainerControl& control, std::int64_t done,
                          std::int64_t total) override;
  void on_evaluate(const TrainerState& state, TrainerControl& control, const OrderedJson& metrics) override;
  void on_train_end(const TrainerState& state, TrainerControl& control) override;

 private:
  void draw(std::string text);
  void hide();
  void redraw();
  void finish();

  ProgressOptions options_;
  std::mutex mutex_;   // log lines may come from other threads
  std::string shown_;  // what stands on the terminal line
  bool active_ = false;
  std::int64_t first_step_ = 0;
  Stopwatch total_;  // since on_train_begin
  Stopwatch evaluation_;
  Stopwatch last_draw_;
  bool drawn_ = false;
  double paused_ = 0;  // seconds of evaluation, not counted in the rate
  bool evaluating_ = false;
  double last_loss_ = std::numeric_limits<double>::quiet_NaN();
};

// "h:mm:ss", or "m:ss" below an hour.
[[nodiscard]] std::string format_duration(double seconds);

}  // namespace dtrain
