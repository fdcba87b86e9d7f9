// Which charts a report has, and what they and its tables share. Pure functions.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "trainer/report/run_files.h"

namespace dtrain {

// "eval_loss", then the other results of evaluations that are no timings, sorted.
[[nodiscard]] std::vector<std::string> metric_keys(const RunLog& log);

// "accuracy" of "eval_accuracy".
[[nodiscard]] std::string short_metric_name(std::string_view key);

// The step of the best evaluation and what makes it the best one: as run.json says, else the lowest eval_loss.
struct BestStep {
  std::optional<double> step;
  std::string reason;
};
[[nodiscard]] BestStep best_step(const RunFiles& run);

// All charts, one after the other; "" when nothing was logged.
[[nodiscard]] std::string charts_html(const RunFiles& run);

}  // namespace dtrain
