#include "trainer/report/report_charts.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <set>

#include <fmt/format.h>

#include "trainer/report/chart.h"
#include "trainer/report/html.h"

namespace dtrain {
namespace {

constexpr std::size_t kLinesOfChart = 6;  // as many as there are colours
// What the charts below show, and running totals that would only be rising lines.
constexpr std::array<std::string_view, 7> kKnownKeys = {
    "loss", "grad_norm", "learning_rate", "tokens", "input_elements", "num_input_tokens_seen", "total_flos"};
constexpr std::string_view kSeconds = "seconds.";
constexpr std::string_view kRankSeconds = "rank_seconds.";

Series evaluation_series(const RunLog& log, const std::string& key, const std::string& name) {
  Series series{.name = name, .steps = {}, .values = {}};
  for (const EvaluationRow& row : log.evaluations) {
    if (const auto found = row.values.find(key); found != row.values.end()) series.add(row.step, found->second);
  }
  return series;
}

std::vector<const Series*> with_prefix(const RunLog& log, std::string_view prefix) {
  std::vector<const Series*> found;
  for (const Series& series : log.training) {
    if (series.name.starts_with(prefix)) found.push_back(&series);
  }
  return found;
}

// From 0 where the log begins near the start of the run, so that the first record's steps have their place.
Axis axis_of_all_steps(const RunLog& log) {
  double first = INFINITY;
  double last = -INFINITY;
  const auto include = [&](double step) {
    first = std::min(first, step);
    last = std::max(last, step);
  };
  for (const Series& series : log.training) {
    if (series.steps.empty()) continue;
    include(series.steps.front());
    include(series.steps.back());
  }
  for (const EvaluationRow& row : log.evaluations) include(row.step);
  if (first > 0 && last > first && first <= last - first) first = 0;
  return step_axis(first, last);
}

// The step after which the steps of each record begin.
std::vector<double> starts_of(const Series& series) {
  std::vector<double> starts(series.steps.size(), 0.0);
  for (std::size_t i = 1; i < starts.size(); ++i) starts[i] = series.steps[i - 1];
  if (starts.size() > 1) starts[0] = std::max(0.0, series.steps[0] - (series.steps[1] - series.steps[0]));
  return starts;
}

class Charts {
 public:
  explicit Charts(const RunFiles& run) : run_(run), log_(run.log), steps_(axis_of_all_steps(run.log)) {
    if (const BestStep best = best_step(run); best.step) best_ = best.step;
  }

  std::string all() {
    add_loss();
    add_metrics();
    add_single("learning_rate", {.title = "Learning rate", .from_zero = true});
    add_single("grad_norm", {.title = "Gradient norm", .from_zero = true, .may_be_logarithmic = true});
    add_throughput();
    add_spans();
    add_rank_balance();
    add_others();
    return html_;
  }

 private:
  void add(LineChart chart) {
    std::erase_if(chart.lines, [](const Series& line) { return line.values.empty(); });
    if (!chart.lines.empty()) html_ += line_chart_html(chart, steps_, ++number_);
  }

  void add_single(std::string_view key, LineChart chart) {
    const Series* series = log_.find(key);
    if (series == nullptr) return;
    chart.lines = {*series};
    chart.lines[0].name = chart.title;
    add(std::move(chart));
  }

  void add_loss() {
    LineChart chart{.title = "Loss", .may_be_logarithmic = true, .best_step = best_, .wide = true};
    if (const Series* loss = log_.find("loss")) {
      chart.lines.push_back(*loss);
      chart.lines[0].name = "training";
    }
    for (const std::string& key : metric_keys(log_)) {
      if (!key.ends_with("loss") || chart.lines.size() == kLinesOfChart) continue;
      chart.lines.push_back(
          evaluation_series(log_, key, key == "eval_loss" ? "evaluation" : "evaluation " + short_metric_name(key)));
    }
    add(std::move(chart));
  }

  // Those between -1 and 1 share charts; others have scales of their own.
  void add_metrics() {
    std::vector<LineChart> charts;
    std::vector<LineChart> own;
    for (const std::string& key : metric_keys(log_)) {
      if (key.ends_with("loss")) continue;
      Series series = evaluation_series(log_, key, short_metric_name(key));
      const bool is_small = std::all_of(series.values.begin(), series.values.end(),
                                        [](double v) { return std::isnan(v) || std::abs(v) <= 1; });
      if (!is_small) {
        own.push_back({.title = series.name, .lines = {series}, .may_be_logarithmic = true, .best_step = best_});
        continue;
      }
      if (charts.empty() || charts.back().lines.size() == kLinesOfChart) {
        charts.push_back({.title = "Metrics", .best_step = best_});
      }
      charts.back().lines.push_back(std::move(series));
    }
    for (const std::vector<LineChart>& group : {charts, own}) {
      for (const LineChart& chart : group) add(chart);
    }
  }

  void add_throughput() {
    const Series* tokens = log_.find("tokens");
    const std::vector<const Series*> parts = with_prefix(log_, kSeconds);
    if (tokens == nullptr || parts.empty()) return;
    std::map<double, double> seconds;  // by step
    for (const Series* part : parts) {
      for (std::size_t i = 0; i < part->steps.size(); ++i) seconds[part->steps[i]] += part->values[i];
    }
    Series rate{.name = "tokens/s", .steps = {}, .values = {}};
    for (std::size_t i = 0; i < tokens->steps.size(); ++i) {
      const auto found = seconds.find(tokens->steps[i]);
      if (found != seconds.end() && found->second > 0) rate.add(tokens->steps[i], tokens->values[i] / found->second);
    }
    add({.title = "Throughput", .unit = "tokens/s of all ranks", .lines = {rate}, .from_zero = true});
  }

  // `log.<prefix>...`, each sum of seconds divided by the number of its steps; named without the prefix.
  std::vector<Series> seconds_per_step(std::string_view prefix) const {
    std::vector<Series> lines;
    for (const Series* part : with_prefix(log_, prefix)) {
      Series line{.name = part->name.substr(prefix.size()), .steps = part->steps, .values = part->values};
      const std::vector<double> starts = starts_of(*part);
      for (std::size_t i = 0; i < starts.size(); ++i) {
        const double steps = line.steps[i] - starts[i];
        line.values[i] = steps > 0 ? std::max(0.0, line.values[i] / steps) : 0;
      }
      lines.push_back(std::move(line));
    }
    return lines;
  }

  // In milliseconds where that gives the shorter numbers.
  static std::string unit_of(std::vector<Series>& lines) {
    double largest = 0;
    for (const Series& line : lines) {
      for (const double value : line.values) largest = std::max(largest, std::isfinite(value) ? value : 0);
    }
    if (largest >= 1) return "seconds";
    for (Series& line : lines) {
      for (double& value : line.values) value *= 1000;
    }
    return "ms";
  }

  void add_spans() {
    StackedChart chart{.title = "Time per step", .unit = "", .starts = {}, .parts = seconds_per_step(kSeconds)};
    if (chart.parts.empty()) return;
    // Parts of other records than the first one's cannot be stacked on it.
    const std::vector<double> steps = chart.parts[0].steps;
    std::erase_if(chart.parts, [&](const Series& part) { return part.steps != steps; });
    chart.starts = starts_of(chart.parts[0]);
    chart.unit = unit_of(chart.parts);
    html_ += stacked_chart_html(chart, steps_, ++number_);
  }

  void add_rank_balance() {
    LineChart chart{
        .title = "Busy time of the ranks per step", .lines = seconds_per_step(kRankSeconds), .from_zero = true};
    chart.unit = unit_of(chart.lines);
    add(std::move(chart));
  }

  void add_others() {
    for (const Series& series : log_.training) {
      if (std::find(kKnownKeys.begin(), kKnownKeys.end(), series.name) != kKnownKeys.end()) continue;
      if (series.name.starts_with(kSeconds) || series.name.starts_with(kRankSeconds)) continue;
      add({.title = series.name, .lines = {series}, .may_be_logarithmic = true});
    }
  }

  const RunFiles& run_;
  const RunLog& log_;
  Axis steps_;
  std::optional<double> best_;
  std::string html_;
  int number_ = 0;
};

}  // namespace

std::string short_metric_name(std::string_view key) {
  return std::string(key.starts_with("eval_") ? key.substr(5) : key);
}

std::vector<std::string> metric_keys(const RunLog& log) {
  std::set<std::string> keys;
  for (const EvaluationRow& row : log.evaluations) {
    for (const auto& [key, value] : row.values) {
      const bool is_timing = key.ends_with("_runtime") || key.ends_with("_per_second") || key.ends_with("_time");
      if (!is_timing && key != "eval_samples") keys.insert(key);
    }
  }
  std::vector<std::string> sorted(keys.begin(), keys.end());
  std::stable_partition(sorted.begin(), sorted.end(), [](const std::string& key) { return key == "eval_loss"; });
  return sorted;
}

BestStep best_step(const RunFiles& run) {
  if (run.record && run.record->best_step) {
    return {static_cast<double>(*run.record->best_step), "the best one as run.json says"};
  }
  BestStep best;
  double lowest = INFINITY;
  for (const EvaluationRow& row : run.log.evaluations) {
    const auto loss = row.values.find("eval_loss");
    if (loss == row.values.end() || !(loss->second < lowest)) continue;
    lowest = loss->second;
    best = {row.step, "the lowest evaluation loss"};
  }
  return best;
}

std::string charts_html(const RunFiles& run) {
  const bool is_empty = run.log.training.empty() && run.log.evaluations.empty();
  return is_empty ? "" : Charts(run).all();
}

}  // namespace dtrain
