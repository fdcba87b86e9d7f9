#include "trainer/hub/model_card.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <string_view>

#include <fmt/format.h>

#include "core/file.h"

namespace dtrain {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kComment =
    "<!-- dtrain wrote this card. Complete it, then remove this comment: a card without it is never overwritten. -->";

// Tag and name of a task on the Hub.
struct TaskTag {
  std::string_view task;
  std::string_view tag;
  std::string_view name;
};
constexpr std::array<TaskTag, 5> kTasks = {
    {{"sequence-classification", "text-classification", "Text Classification"},
     {"token-classification", "token-classification", "Token Classification"},
     {"masked-lm", "fill-mask", "Masked Language Modeling"},
     {"causal-lm", "text-generation", "Causal Language Modeling"},
     {"seq2seq-lm", "text2text-generation", "Sequence-to-sequence Language Modeling"}}};

// Results that are metrics by these names on the Hub.
constexpr std::array<std::string_view, 11> kMetricTags = {"accuracy",  "bleu",      "f1",     "matthews_correlation",
                                                          "pearsonr",  "precision", "recall", "rouge",
                                                          "sacrebleu", "spearmanr", "wer"};

// A number as Python prints it: the shortest text that gives it back, with a point or an exponent.
std::string python_text(double value) {
  std::string text = fmt::format("{}", value);
  if (text.find_first_of(".en") == std::string::npos) text += ".0";
  return text;
}

std::string python_text(const OrderedJson& value) {
  if (value.is_number_float()) return python_text(value.get<double>());
  if (value.is_null()) return "nan";  // what JSON cannot express
  return value.is_string() ? value.get<std::string>() : value.dump();
}

// Numbers with more than four decimals are rounded to four.
std::string shown(const OrderedJson& value) {
  const std::string text = python_text(value);
  if (!value.is_number_float()) return text;
  const std::size_t point = text.find('.');
  const bool is_long = point != std::string::npos && text.size() - point - 1 > 4;
  return is_long ? fmt::format("{:.4f}", value.get<double>()) : text;
}

// YAML 1.1 reads a number with an exponent only where there is a point.
std::string yaml_number(const OrderedJson& value) {
  if (value.is_null()) return ".nan";
  if (!value.is_number_float()) return value.dump();
  const auto number = value.get<double>();
  if (std::isnan(number)) return ".nan";
  if (std::isinf(number)) return number > 0 ? ".inf" : "-.inf";
  std::string text = python_text(number);
  const std::size_t exponent = text.find('e');
  if (exponent != std::string::npos && text.find('.') == std::string::npos) text.insert(exponent, ".0");
  return text;
}

// As it is where nothing in it means something to YAML, else as a JSON string, which YAML reads too.
std::string yaml_text(const std::string& text) {
  static constexpr std::array<std::string_view, 9> kWords = {"true", "false", "yes", "no", "on",
                                                             "off",  "null",  "y",   "n"};
  const auto plain = [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '_' || c == '-' || c == '.' || c == '/';
  };
  std::string lower = text;
  std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return std::tolower(c); });
  const bool is_plain =
      !text.empty() && std::isalpha(static_cast<unsigned char>(text.front())) != 0 &&
      std::all_of(text.begin(), text.end(), [&](char c) { return plain(static_cast<unsigned char>(c)) || c == ' '; }) &&
      text.back() != ' ' && std::find(kWords.begin(), kWords.end(), lower) == kWords.end();
  return is_plain ? text : Json(text).dump(-1, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace);
}

// "matthews_correlation" -> "Matthews Correlation".
std::string title_of(std::string_view name) {
  std::string title;
  bool first = true;
  for (const char c : name) {
    const auto byte = static_cast<unsigned char>(c);
    title += c == '_' ? ' ' : static_cast<char>(first ? std::toupper(byte) : std::tolower(byte));
    first = c == '_';
  }
  return title;
}

bool is_timing(std::string_view key) {
  return key == "eval_runtime" || key == "eval_samples_per_second" || key == "eval_steps_per_second" ||
         key == "epoch" || key == "step";
}

struct Result {
  std::string name;  // "Loss"
  std::string tag;   // the Hub's name of the metric, or ""
  OrderedJson value;
};

std::vector<Result> results_of(const OrderedJson& record) {
  std::vector<Result> results;
  if (!record.is_object()) return results;
  for (const auto& [key, value] : record.items()) {
    if (is_timing(key)) continue;
    const std::string name = key.starts_with("eval_") ? key.substr(5) : key;
    std::string tag;
    if (std::find(kMetricTags.begin(), kMetricTags.end(), name) != kMetricTags.end()) tag = name;
    if (name == "rouge1") tag = "rouge";
    results.push_back({title_of(name), std::move(tag), value});
  }
  return results;
}

// One row per evaluation of the training: column -> value.
std::vector<OrderedJson> result_rows(const std::vector<OrderedJson>& log_history) {
  std::vector<OrderedJson> rows;
  OrderedJson training_loss = "No log";
  for (const OrderedJson& record : log_history) {
    if (record.contains("train_runtime")) break;
    if (record.contains("loss")) training_loss = record.at("loss");
    if (!record.contains("eval_loss")) continue;
    OrderedJson row = {{"Training Loss", training_loss},
                       {"Epoch", record.value("epoch", OrderedJson())},
                       {"Step", record.value("step", OrderedJson())}};
    for (const auto& [key, value] : record.items()) {
      if (is_timing(key) || key == "total_flos") continue;
      const std::size_t underscore = key.find('_');
      row[key == "eval_loss" ? "Validation Loss"
                             : title_of(underscore == std::string::npos ? "" : key.substr(underscore + 1))] = value;
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

std::string table_text(const std::vector<OrderedJson>& rows) {
  if (rows.empty()) return "";
  std::vector<std::string> columns;
  for (const auto& [name, value] : rows.front().items()) columns.push_back(name);
  std::vector<std::vector<std::string>> cells = {columns};
  for (const OrderedJson& row : rows) {
    std::vector<std::string>& line = cells.emplace_back();
    for (const std::string& name : columns) line.push_back(row.contains(name) ? shown(row.at(name)) : "");
  }
  std::vector<std::size_t> widths(columns.size(), 0);
  for (const auto& line : cells) {
    for (std::size_t i = 0; i < line.size(); ++i) widths[i] = std::max(widths[i], line[i].size());
  }
  std::string text;
  for (const auto& line : cells) {
    for (std::size_t i = 0; i < line.size(); ++i) text += fmt::format("| {:<{}} ", line[i], widths[i]);
    text += "|\n";
    if (&line != &cells.front()) continue;
    for (const std::size_t width : widths) text += fmt::format("|:{}:", std::string(width, '-'));
    text += "|\n";
  }
  return text;
}

// What stands behind "license:", when it is one of the Hub's names and not a list or a text over several lines.
std::string license_name(std::string_view value) {
  value = value.substr(0, value.find(" #"));
  const auto trim = [&](std::string_view characters) {
    const std::size_t first = value.find_first_not_of(characters);
    if (first == std::string_view::npos) return value = {};
    return value = value.substr(first, value.find_last_not_of(characters) - first + 1);
  };
  trim(" \t\r");
  trim("\"'");
  const bool is_name = std::all_of(value.begin(), value.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '-' || c == '.' || c == '_' || c == '+';
  });
  return is_name ? std::string(value) : "";
}

std::string metadata_text(const ModelCardFacts& facts, const std::vector<Result>& results) {
  std::string text = "library_name: transformers\n";
  if (!facts.license.empty()) text += fmt::format("license: {}\n", yaml_text(facts.license));
  if (!facts.base_model.empty()) text += fmt::format("base_model: {}\n", yaml_text(facts.base_model));
  text += "tags:\n- generated_from_trainer\n- dtrain\n";
  if (!facts.dataset.empty()) text += fmt::format("datasets:\n- {}\n", yaml_text(facts.dataset));
  const bool has_metrics = std::any_of(results.begin(), results.end(), [](const Result& r) { return !r.tag.empty(); });
  if (has_metrics) {
    text += "metrics:\n";
    for (const Result& result : results) {
      if (!result.tag.empty()) text += fmt::format("- {}\n", result.tag);
    }
  }
  text += fmt::format("model-index:\n- name: {}\n", yaml_text(facts.name));
  const auto task =
      std::find_if(kTasks.begin(), kTasks.end(), [&](const TaskTag& known) { return known.task == facts.task; });
  // The Hub refuses a result without its task, data set and metrics.
  if (facts.dataset.empty() || !has_metrics || task == kTasks.end()) return text + "  results: []\n";
  text += fmt::format("  results:\n  - task:\n      name: {}\n      type: {}\n", task->name, task->tag);
  text += fmt::format("    dataset:\n      name: {0}\n      type: {0}\n    metrics:\n", yaml_text(facts.dataset));
  for (const Result& result : results) {
    if (result.tag.empty()) continue;
    text += fmt::format("    - name: {}\n      type: {}\n      value: {}\n", result.name, result.tag,
                        yaml_number(result.value));
  }
  return text;
}

}  // namespace

std::string model_card(const ModelCardFacts& facts) {
  const std::vector<Result> results = results_of(facts.results);
  std::string text = fmt::format("---\n{}---\n\n{}\n\n# {}\n\n", metadata_text(facts, results), kComment, facts.name);
  if (facts.from_scratch) {
    text += "Trained from random weights";
  } else if (facts.base_model.empty()) {
    text += "A fine-tuned model, trained";
  } else {
    text += fmt::format("[{0}](https://huggingface.co/{0}), fine-tuned", facts.base_model);
  }
  text += facts.dataset.empty() ? " with dtrain.\n" : fmt::format(" with dtrain on the data set {}.\n", facts.dataset);
  if (!results.empty()) {
    text += "\nResults on the evaluation set:\n\n";
    for (const Result& result : results) text += fmt::format("- {}: {}\n", result.name, shown(result.value));
  }
  for (const char* section : {"Model description", "Intended uses and limitations", "Training and evaluation data"}) {
    text += fmt::format("\n## {}\n\nTo be written.\n", section);
  }
  text += "\n## Training procedure\n\n### Training hyperparameters\n\n";
  for (const auto& [name, value] : facts.hyperparameters) text += fmt::format("- {}: {}\n", name, value);
  if (const std::string table = table_text(result_rows(facts.log_history)); !table.empty()) {
    text += "\n### Training results\n\n" + table;
  }
  text += "\n### Framework versions\n\n";
  for (const auto& [name, version] : facts.versions) text += fmt::format("- {} {}\n", name, version);
  return text;
}

std::vector<std::pair<std::string, std::string>> card_hyperparameters(const TrainConfig& config, int world_size,
                                                                      bool on_gpu) {
  const TrainingConfig& training = config.training;
  std::vector<std::pair<std::string, std::string>> list;
  const auto add = [&](const char* name, std::string value) { list.emplace_back(name, std::move(value)); };
  add("learning_rate", python_text(training.learning_rate));
  add("train_batch_size", std::to_string(training.per_device_train_batch_size));
  add("eval_batch_size", std::to_string(training.per_device_eval_batch_size));
  add("seed", std::to_string(training.seed));
  if (world_size > 1) {
    add("distributed_type", on_gpu ? "multi-GPU" : "multi-CPU");
    add("num_devices", std::to_string(world_size));
  }
  if (training.gradient_accumulation_steps > 1) {
    add("gradient_accumulation_steps", std::to_string(training.gradient_accumulation_steps));
  }
  const std::int64_t devices = world_size * training.gradient_accumulation_steps;
  if (devices > 1) add("total_train_batch_size", std::to_string(training.per_device_train_batch_size * devices));
  if (world_size > 1) {
    add("total_eval_batch_size", std::to_string(training.per_device_eval_batch_size * world_size));
  }
  std::string optimizer = training.optim;
  if (optimizer.starts_with("adam")) {
    optimizer += fmt::format(" with betas=({},{}) and epsilon={}", python_text(training.adam_beta1),
                             python_text(training.adam_beta2), python_text(training.adam_epsilon));
  }
  if (training.optim_args) optimizer += fmt::format(" with {}", *training.optim_args);
  if (training.weight_decay != 0) optimizer += fmt::format(" and weight_decay={}", python_text(training.weight_decay));
  add("optimizer", std::move(optimizer));
  add("lr_scheduler_type", training.lr_scheduler_type);
  if (training.warmup_steps != 0) {
    const bool is_share = training.warmup_steps < 1;
    add("lr_scheduler_warmup_steps",
        is_share ? python_text(training.warmup_steps) : fmt::format("{:.0f}", training.warmup_steps));
  }
  if (training.max_steps != -1) {
    add("training_steps", std::to_string(training.max_steps));
  } else {
    add("num_epochs", python_text(training.num_train_epochs));
  }
  if (training.fp16 || training.bf16) add("mixed_precision_training", training.fp16 ? "float16" : "bfloat16");
  if (training.label_smoothing_factor != 0) {
    add("label_smoothing_factor", python_text(training.label_smoothing_factor));
  }
  return list;
}

std::string license_of(const fs::path& folder) {
  const fs::path path = folder / "README.md";
  std::error_code code;
  if (!fs::is_regular_file(path, code)) return "";
  const std::string text = read_file(path);
  if (!text.starts_with("---")) return "";
  std::size_t line_start = text.find('\n');
  while (line_start != std::string::npos) {
    ++line_start;
    const std::size_t line_end = text.find('\n', line_start);
    std::string_view line =
        std::string_view(text).substr(line_start, line_end == std::string::npos ? line_end : line_end - line_start);
    if (line.starts_with("---")) return "";
    constexpr std::string_view kKey = "license:";
    if (line.starts_with(kKey)) return license_name(line.substr(kKey.size()));
    line_start = line_end;
  }
  return "";
}

bool is_generated_card(std::string_view text) { return text.find(kComment) != std::string_view::npos; }

}  // namespace dtrain
