#include "trainer/report/run_files.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <fmt/format.h>

#include "configs/load_config.h"
#include "core/error.h"
#include "core/file.h"
#include "trainer/checkpoint/checkpoint_store.h"
#include "trainer/checkpoint/trainer_state.h"

namespace dtrain {
namespace fs = std::filesystem;
namespace {

constexpr double kNotANumber = std::numeric_limits<double>::quiet_NaN();
// A log of ours has about 20. More than this is not worth a look.
constexpr std::size_t kMostKeys = 64;

// What a chart can show: everything but the ends of the range of double, whose differences overflow or vanish.
double shown_number(const OrderedJson& value) {
  const double number = value.is_number() ? value.get<double>() : kNotANumber;
  if (std::abs(number) > 1e300) return kNotANumber;
  return std::abs(number) < 1e-300 ? 0 : number;
}

bool is_number_or_null(const OrderedJson& value) { return value.is_number() || value.is_null(); }

bool is_evaluation(const OrderedJson& record) {
  for (const auto& [key, value] : record.items()) {
    if (key.starts_with("eval_")) return true;
  }
  return false;
}

// Takes records in the order of the log.
class LogReader {
 public:
  // False when the record has no step.
  bool add(const OrderedJson& record) {
    const auto found = record.find("step");
    if (found == record.end() || !found->is_number()) return false;
    const double step = shown_number(*found);
    if (std::isnan(step)) return false;
    if (record.contains("train_runtime")) {
      for (const auto& [key, value] : record.items()) {
        if (is_number_or_null(value)) log_.summary[key] = shown_number(value);
      }
    } else if (is_evaluation(record)) {
      add_evaluation(step, record);
    } else {
      for (const auto& [key, value] : record.items()) {
        if (value.is_object()) {
          for (const auto& [inner, part] : value.items()) add_number(key + "." + inner, step, part);
        } else if (key != "step" && key != "epoch") {
          add_number(key, step, value);
        }
      }
      if (record.contains("loss")) train_loss_ = shown_number(record["loss"]);
    }
    return true;
  }

  RunLog finish() {
    for (Series& series : log_.training) sort_by_step(series);
    std::stable_sort(log_.evaluations.begin(), log_.evaluations.end(),
                     [](const EvaluationRow& a, const EvaluationRow& b) { return a.step < b.step; });
    if (left_out_ > 0) log_.notes.push_back(fmt::format("{} values under further names are left out", left_out_));
    return std::move(log_);
  }

 private:
  void add_number(const std::string& key, double step, const OrderedJson& value) {
    if (!is_number_or_null(value)) return;
    auto series = index_.find(key);
    if (series == index_.end()) {
      if (index_.size() == kMostKeys) {
        ++left_out_;
        return;
      }
      series = index_.emplace(key, log_.training.size()).first;
      log_.training.push_back({.name = key, .steps = {}, .values = {}});
    }
    log_.training[series->second].add(step, shown_number(value));
  }

  // Several data sets evaluated at one step are one row.
  void add_evaluation(double step, const OrderedJson& record) {
    if (log_.evaluations.empty() || log_.evaluations.back().step != step) {
      log_.evaluations.push_back({.step = step, .epoch = std::nullopt, .train_loss = train_loss_, .values = {}});
    }
    EvaluationRow& row = log_.evaluations.back();
    for (const auto& [key, value] : record.items()) {
      if (key == "epoch") row.epoch = shown_number(value);
      if (!key.starts_with("eval_") || !is_number_or_null(value)) continue;
      if (!metrics_.contains(key) && metrics_.size() == kMostKeys) {
        ++left_out_;
        continue;
      }
      metrics_[key] = true;
      row.values[key] = shown_number(value);
    }
  }

  static void sort_by_step(Series& series) {
    if (std::is_sorted(series.steps.begin(), series.steps.end())) return;
    std::vector<std::size_t> order(series.steps.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return series.steps[a] < series.steps[b]; });
    series = at_indices(series, order);
  }

  RunLog log_;
  std::map<std::string, std::size_t> index_;
  std::map<std::string, bool> metrics_;
  std::optional<double> train_loss_;
  std::size_t left_out_ = 0;
};

// Runs `read`; when it fails, the failure becomes a note.
template <class Read>
void or_note(std::vector<std::string>& notes, const Read& read) {
  try {
    read();
  } catch (const Error& error) {
    notes.emplace_back(error.what());
  }
}

void read_settings(RunFiles& run, const std::vector<fs::path>& folders) {
  for (const fs::path& folder : folders) {
    std::error_code code;
    if (!fs::exists(folder / "train.toml", code)) continue;
    const std::string name = (folder / "train.toml").lexically_relative(run.folder).string();
    or_note(run.notes, [&] {
      run.config = read_saved_config(read_file(folder / "train.toml"), name);
      run.config_file = name;
    });
    return;
  }
  run.notes.emplace_back("the settings are not known: they are in checkpoints (train.toml), and there is none");
}

// The first of `folders` that has the file.
fs::path first_with(const std::vector<fs::path>& folders, const char* name) {
  for (const fs::path& folder : folders) {
    std::error_code code;
    if (fs::exists(folder / name, code)) return folder / name;
  }
  return {};
}

void read_history(RunFiles& run, const std::vector<fs::path>& folders) {
  std::optional<TrainerState> state;
  if (const fs::path path = first_with(folders, "trainer_state.json"); !path.empty()) {
    or_note(run.notes, [&] { state = read_trainer_state(path); });
  }
  if (state && state->max_steps > 0) run.max_steps = state->max_steps;
  const fs::path path = run.folder / "log.jsonl";
  std::error_code code;
  if (fs::exists(path, code)) {
    run.log = parse_run_log(MappedFile(path).text(), "log.jsonl");
  } else if (state) {
    LogReader reader;
    for (const OrderedJson& record : state->log_history) (void)reader.add(record);
    run.log = reader.finish();
    run.notes.emplace_back("there is no log.jsonl; the numbers are those of trainer_state.json");
  } else if (!run.record) {
    throw usage_error(fmt::format("{} holds no run: neither log.jsonl nor trainer_state.json", run.folder.string()),
                      "name the output_dir of a run");
  } else {
    run.notes.emplace_back("there is no log.jsonl: nothing has been logged yet");
  }
}

void read_results(RunFiles& run) {
  std::error_code code;
  const fs::path path = run.folder / "eval_results.json";
  if (!fs::exists(path, code)) return;
  or_note(run.notes, [&] {
    const OrderedJson results = read_json_file(path);
    if (!results.is_object()) throw data_error("eval_results.json is not a JSON object");
    for (const auto& [key, value] : results.items()) {
      if (key.starts_with("eval_") && is_number_or_null(value)) run.final_evaluation[key] = shown_number(value);
    }
  });
}

}  // namespace

const Series* RunLog::find(std::string_view key) const {
  const auto found =
      std::find_if(training.begin(), training.end(), [&](const Series& series) { return series.name == key; });
  return found == training.end() ? nullptr : &*found;
}

RunLog parse_run_log(std::string_view text, const std::string& name) {
  LogReader reader;
  std::vector<std::string> notes;
  std::int64_t line_number = 0;
  std::int64_t unreadable = 0;
  std::int64_t first_unreadable = 0;
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    const bool is_cut = end == std::string_view::npos;
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(is_cut ? text.size() : end + 1);
    ++line_number;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const OrderedJson record = OrderedJson::parse(line, nullptr, /*allow_exceptions=*/false);
    if (record.is_object() && reader.add(record)) continue;
    if (is_cut) {
      notes.push_back(
          fmt::format("the last line of {} is cut short and left out: the run was killed while writing it", name));
      break;
    }
    if (unreadable++ == 0) first_unreadable = line_number;
  }
  RunLog log = reader.finish();
  if (unreadable > 0) {
    log.notes.push_back(fmt::format("{} line{} of {} cannot be read and {} left out, the first is line {}", unreadable,
                                    unreadable == 1 ? "" : "s", name, unreadable == 1 ? "is" : "are",
                                    first_unreadable));
  }
  log.notes.insert(log.notes.end(), notes.begin(), notes.end());
  return log;
}

RunFiles read_run_files(const fs::path& folder) {
  std::error_code code;
  if (!fs::is_directory(folder, code)) {
    throw usage_error(fmt::format("{} is no folder", folder.string()), "name the output_dir of a run");
  }
  RunFiles run;
  run.folder = folder;
  or_note(run.notes, [&] { run.record = read_run_record(folder); });
  // The newest first.
  std::vector<fs::path> checkpoints;
  for (const Checkpoint& checkpoint : CheckpointStore(folder).list()) checkpoints.push_back(checkpoint.folder);
  std::reverse(checkpoints.begin(), checkpoints.end());
  std::vector<fs::path> root_first = {folder};
  root_first.insert(root_first.end(), checkpoints.begin(), checkpoints.end());
  std::vector<fs::path> checkpoints_first = checkpoints;
  checkpoints_first.push_back(folder);

  read_history(run, root_first);
  read_settings(run, checkpoints_first);
  if (const fs::path path = first_with(root_first, "config.json"); !path.empty()) {
    or_note(run.notes, [&] {
      const Json config = read_json_file(path);
      if (config.is_object() && config.contains("model_type") && config["model_type"].is_string()) {
        run.model_type = config["model_type"].get<std::string>();
      }
    });
  }
  read_results(run);
  run.notes.insert(run.notes.end(), run.log.notes.begin(), run.log.notes.end());
  return run;
}

}  // namespace dtrain
