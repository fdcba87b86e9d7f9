#include "trainer/callbacks/log_printer.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

#include "core/log.h"
#include "core/text_table.h"

namespace dtrain {
namespace {

std::string number_text(const std::string& key, const OrderedJson& value) {
  if (value.is_null()) return "nan";
  if (value.is_number_integer()) return value.dump();
  if (!value.is_number()) return value.is_string() ? value.get<std::string>() : value.dump();
  const double number = value.get<double>();
  if (key == "epoch") return fmt::format("{:.2f}", number);
  if (key == "grad_norm" || key == "learning_rate") return fmt::format("{:.3g}", number);
  if (key.ends_with("_runtime")) return fmt::format("{:.1f}s", number);
  if (number != 0 && (std::abs(number) < 1e-3 || std::abs(number) >= 1e6)) return fmt::format("{:.4g}", number);
  return fmt::format("{:.4f}", number);
}

// Keys that the line says in another way, or that only files need.
bool is_hidden(const std::string& key) {
  return key == "step" || key == "total_flos" || key == "num_input_tokens_seen" || key.ends_with("_per_second");
}

std::string column_name(const std::string& key) {
  if (key == "eval_loss") return "eval loss";
  return key.starts_with("eval_") ? key.substr(5) : key;
}

}  // namespace

std::string log_line(const TrainerState& state, const OrderedJson& record, double samples_per_second) {
  std::string line = fmt::format("step {}/{}", state.global_step, state.max_steps);
  for (const auto& [key, value] : record.items()) {
    if (key.ends_with("_samples_per_second") && value.is_number()) samples_per_second = value.get<double>();
    if (is_hidden(key)) continue;
    line += fmt::format(" {} {}", key == "learning_rate" ? "lr" : key, number_text(key, value));
  }
  if (samples_per_second > 0) line += fmt::format(" | {:.1f} samples/s", samples_per_second);
  return line;
}

std::string results_table(const TrainerState& state) {
  const auto is_evaluation = [](const OrderedJson& record) {
    return record.contains("eval_loss") || record.contains("eval_runtime");
  };
  std::vector<std::string> keys;  // of all evaluations, in order of first appearance
  bool has_train_loss = false;
  for (const OrderedJson& record : state.log_history) {
    if (record.contains("loss")) has_train_loss = true;
    if (!is_evaluation(record)) continue;
    for (const auto& [key, value] : record.items()) {
      const bool is_metric =
          key.starts_with("eval_") && !is_hidden(key) && !key.ends_with("_time") && !key.ends_with("_runtime");
      if (is_metric && std::find(keys.begin(), keys.end(), key) == keys.end()) keys.push_back(key);
    }
  }
  // A file read back has its keys sorted; the loss still comes first.
  const auto loss = std::find(keys.begin(), keys.end(), "eval_loss");
  if (loss != keys.end()) std::rotate(keys.begin(), loss, loss + 1);

  std::vector<std::vector<std::string>> rows = {{"step", "epoch"}};
  if (has_train_loss) rows[0].emplace_back("train loss");
  for (const std::string& key : keys) rows[0].push_back(column_name(key));
  std::vector<std::int64_t> steps;  // of the rows after the first
  std::string train_loss = "-";
  for (const OrderedJson& record : state.log_history) {
    if (record.contains("loss")) train_loss = number_text("loss", record["loss"]);
    if (!is_evaluation(record)) continue;
    const std::int64_t step = record.value("step", std::int64_t{0});
    std::vector<std::string>& row = rows.emplace_back();
    row = {fmt::format("{}", step), record.contains("epoch") ? number_text("epoch", record["epoch"]) : "-"};
    if (has_train_loss) row.push_back(train_loss);
    for (const std::string& key : keys) row.push_back(record.contains(key) ? number_text(key, record[key]) : "-");
    steps.push_back(step);
  }
  if (steps.empty()) return {};

  const std::vector<std::size_t> widths = column_widths(rows);
  std::string table = right_aligned(rows[0], widths);
  for (std::size_t i = 0; i < steps.size(); ++i) {
    table += "\n" + right_aligned(rows[i + 1], widths);
    if (state.best_global_step == steps[i]) table += "  best";
  }
  return table;
}

void LogPrinter::on_train_begin(const TrainerState&, TrainerControl&) {
  since_mark_.restart();
  seconds_ = 0;
  samples_ = 0;
}

void LogPrinter::on_step_end(const TrainerState&, TrainerControl&, const StepReport& report) {
  seconds_ += since_mark_.seconds();
  since_mark_.restart();
  samples_ += report.samples;
}

void LogPrinter::on_log(const TrainerState& state, TrainerControl&, const OrderedJson& record) {
  double rate = 0;
  if (record.contains("loss")) {
    if (samples_ > 0 && seconds_ > 0) rate = static_cast<double>(samples_) / seconds_;
    seconds_ = 0;
    samples_ = 0;
  }
  if (state.is_world_process_zero) log::info("{}", log_line(state, record, rate));
}

void LogPrinter::on_evaluate(const TrainerState&, TrainerControl&, const OrderedJson&) { since_mark_.restart(); }

void LogPrinter::on_save(const TrainerState& state, TrainerControl&, const std::filesystem::path& checkpoint) {
  if (state.is_world_process_zero)
    log::info("step {}/{} saved {}", state.global_step, state.max_steps, checkpoint.string());
  since_mark_.restart();
}

}  // namespace dtrain
