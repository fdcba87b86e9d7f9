// RunFiles: what the files in the output_dir of a run say about it, for its report. A plain value. Reading changes
// nothing and survives whatever a killed process, or somebody's editor, left: what is missing or cannot be read is a
// note in plain words.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "configs/train_config.h"
#include "core/json.h"
#include "trainer/checkpoint/run_json.h"
#include "trainer/report/series.h"

namespace dtrain {

// The evaluations of one step. NaN: not a number in the log.
struct EvaluationRow {
  double step = 0;
  std::optional<double> epoch;
  std::optional<double> train_loss;      // the last one logged before
  std::map<std::string, double> values;  // by "eval_..." key
};

// The records of a log, taken apart by what they speak of.
struct RunLog {
  // The numbers of training records by key, in the order in which the keys came; those of objects within as
  // "seconds.data". A series lacks the steps whose record lacks the key.
  std::vector<Series> training;
  std::vector<EvaluationRow> evaluations;  // by step
  std::map<std::string, double> summary;   // of the last record with "train_runtime"
  std::vector<std::string> notes;

  // Null when no record had the key.
  [[nodiscard]] const Series* find(std::string_view key) const;
};

struct RunFiles {
  std::filesystem::path folder;
  std::optional<RunRecord> record;  // run.json
  RunLog log;                       // log.jsonl, else the history in trainer_state.json
  std::optional<TrainConfig> config;
  std::string config_file;  // where `config` was read, relative to `folder`
  std::string model_type;   // of config.json
  std::optional<std::int64_t> max_steps;
  std::map<std::string, double> final_evaluation;  // eval_results.json
  std::vector<std::string> notes;                  // what is missing or damaged, log.notes included
};

// `text` as in log.jsonl; `name` is for notes.
[[nodiscard]] RunLog parse_run_log(std::string_view text, const std::string& name);

// Throws Error(kUsage) when `folder` is no folder or holds no log of a run.
[[nodiscard]] RunFiles read_run_files(const std::filesystem::path& folder);

}  // namespace dtrain
