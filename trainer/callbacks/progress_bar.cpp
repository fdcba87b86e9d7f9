#include "trainer/callbacks/progress_bar.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include <sys/ioctl.h>
#include <unistd.h>

#include <fmt/format.h>

#include "core/log.h"

namespace dtrain {
namespace {

constexpr std::int64_t kBarWidth = 20;
constexpr std::size_t kDefaultColumns = 120;

void write_to_stderr(std::string_view text) {
  // A progress bar that cannot be written is no reason to stop a run.
  while (!text.empty()) {
    const ssize_t written = ::write(STDERR_FILENO, text.data(), text.size());
    if (written <= 0) return;
    text.remove_prefix(static_cast<std::size_t>(written));
  }
}

std::size_t terminal_columns() {
  winsize size{};
  if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return kDefaultColumns;
  return size.ws_col;
}

}  // namespace

bool stderr_is_terminal() { return ::isatty(STDERR_FILENO) == 1; }

std::string format_duration(double seconds) {
  const auto whole = static_cast<std::int64_t>(std::llround(std::clamp(seconds, 0.0, 1e9)));
  const std::int64_t hours = whole / 3600;
  const std::int64_t minutes = whole / 60 % 60;
  if (hours > 0) return fmt::format("{}:{:02}:{:02}", hours, minutes, whole % 60);
  return fmt::format("{}:{:02}", minutes, whole % 60);
}

std::string progress_text(const Progress& progress) {
  const double share =
      progress.total > 0
          ? std::clamp(static_cast<double>(progress.done) / static_cast<double>(progress.total), 0.0, 1.0)
          : 0;
  const auto filled = static_cast<std::size_t>(share * kBarWidth);
  std::string text = fmt::format("{:<10} {:3.0f}% |{:<{}}| {}/{}", progress.label, std::floor(share * 100),
                                 std::string(filled, '#'), kBarWidth, progress.done, progress.total);
  if (!std::isnan(progress.loss)) text += fmt::format("  loss {:.4f}", progress.loss);
  if (progress.learning_rate >= 0) text += fmt::format("  lr {:.3g}", progress.learning_rate);
  if (progress.per_second > 0) {
    text += progress.per_second >= 1 ? fmt::format("  {:.2f} it/s", progress.per_second)
                                     : fmt::format("  {:.2f} s/it", 1 / progress.per_second);
    text += "  left " + format_duration(static_cast<double>(progress.total - progress.done) / progress.per_second);
  }
  return text;
}

ProgressBar::ProgressBar(ProgressOptions options) : options_(std::move(options)) {
  if (!options_.write) options_.write = write_to_stderr;
}

ProgressBar::~ProgressBar() { finish(); }

void ProgressBar::start() {
  active_ = true;
  anything_shown_ = false;
  since_shown_.restart();
  if (!options_.terminal) return;
  log::set_terminal_guard(
      [this] {
        const std::lock_guard lock(mutex_);
        hidden_ = true;
        if (!shown_.empty()) options_.write("\r\x1b[K");
      },
      [this] {
        const std::lock_guard lock(mutex_);
        hidden_ = false;
        if (!shown_.empty()) options_.write(shown_);
      });
}

void ProgressBar::finish() {
  if (!active_) return;
  active_ = false;
  if (!options_.terminal) return;
  log::set_terminal_guard({}, {});
  const std::lock_guard lock(mutex_);
  if (!shown_.empty()) options_.write("\n");
  shown_.clear();
}

void ProgressBar::show(std::string text, bool now) {
  if (!options_.terminal) {
    if (since_shown_.seconds() < options_.line_seconds) return;
    since_shown_.restart();
    options_.write(text + "\n");
    return;
  }
  if (anything_shown_ && !now && since_shown_.seconds() < options_.redraw_seconds) return;
  since_shown_.restart();
  anything_shown_ = true;
  text.resize(std::min(text.size(), terminal_columns() - 1));  // a line that wraps could not be redrawn
  const std::lock_guard lock(mutex_);
  shown_ = std::move(text);
  if (!hidden_) options_.write("\r" + shown_ + "\x1b[K");
}

void ProgressBar::on_train_begin(const TrainerState& state, TrainerControl&) {
  if (!state.is_world_process_zero) return;
  first_step_ = state.global_step;
  since_begin_.restart();
  paused_seconds_ = 0;
  evaluating_ = false;
  start();
  if (options_.terminal) {
    show(progress_text({.label = "training", .done = state.global_step, .total = state.max_steps}), true);
  }
}

void ProgressBar::on_step_end(const TrainerState& state, TrainerControl&, const StepReport& report) {
  if (!active_) return;
  if (!std::isnan(report.loss)) loss_ = report.loss;
  const double seconds = since_begin_.seconds() - paused_seconds_;
  const double rate = seconds > 0 ? static_cast<double>(state.global_step - first_step_) / seconds : 0;
  show(progress_text({.label = "training",
                      .done = state.global_step,
                      .total = state.max_steps,
                      .per_second = rate,
                      .loss = loss_,
                      .learning_rate = report.learning_rate}),
       state.global_step >= state.max_steps);
}

void ProgressBar::on_log(const TrainerState&, TrainerControl&, const OrderedJson& record) {
  if (const auto loss = record.find("loss"); loss != record.end() && loss->is_number()) loss_ = loss->get<double>();
}

void ProgressBar::on_prediction_step(const TrainerState& state, TrainerControl&, std::int64_t done,
                                     std::int64_t total) {
  if (!state.is_world_process_zero) return;
  if (!active_) start();  // evaluation without training
  if (!evaluating_) {
    evaluating_ = true;
    since_evaluation_.restart();
  }
  const double seconds = since_evaluation_.seconds();
  // The first batch has no beginning that this object has seen, so it does not count for the rate.
  const double rate = seconds > 0 ? static_cast<double>(done - 1) / seconds : 0;
  show(progress_text({.label = "evaluating", .done = done, .total = total, .per_second = rate}), done >= total);
}

void ProgressBar::on_evaluate(const TrainerState&, TrainerControl&, const OrderedJson&) {
  if (!evaluating_) return;
  evaluating_ = false;
  paused_seconds_ += since_evaluation_.seconds();
}

void ProgressBar::on_train_end(const TrainerState&, TrainerControl&) { finish(); }

}  // namespace dtrain
