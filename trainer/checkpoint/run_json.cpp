#include "trainer/checkpoint/run_json.h"

#include <algorithm>
#include <cstdlib>

#include "core/file.h"
#include "trainer/checkpoint/json_fields.h"

namespace dtrain {
namespace fs = std::filesystem;
namespace {

int attempt_of_this_process() {
  // `dtrain launch` counts from 1, Slurm its restarts from 0 (unset at first).
  if (const char* attempt = std::getenv("DTRAIN_ATTEMPT")) return std::max(1, std::atoi(attempt));
  if (const char* restarts = std::getenv("SLURM_RESTART_COUNT")) return 1 + std::max(0, std::atoi(restarts));
  return 1;
}

}  // namespace

void write_run_record(const fs::path& output_dir, const RunRecord& record) {
  const OrderedJson json = {{"state", record.state},
                            {"step", record.step},
                            {"checkpoint", json_or_null(record.checkpoint)},
                            {"best_step", json_or_null(record.best_step)},
                            {"best_metric", json_or_null(record.best_metric)},
                            {"best_checkpoint", json_or_null(record.best_checkpoint)},
                            {"exit", json_or_null(record.exit)},
                            {"attempt", attempt_of_this_process()},
                            {"reason", record.reason},
                            {"suspects", record.suspects},
                            {"hub", json_or_null(record.hub)}};
  replace_file(output_dir / "run.json", json.dump(2, ' ', false, OrderedJson::error_handler_t::replace) + "\n");
}

void update_run_record(const fs::path& output_dir, RunRecord record) {
  try {
    const std::optional<RunRecord> known = read_run_record(output_dir);
    if (known && known->state == "failed") {
      record.state = known->state;
      record.exit = known->exit;
      record.reason = known->reason;
      record.suspects = known->suspects;
    }
  } catch (const Error&) {
    // A record that cannot be read is replaced.
  }
  write_run_record(output_dir, record);
}

std::optional<RunRecord> read_run_record(const fs::path& output_dir) {
  const fs::path path = output_dir / "run.json";
  std::error_code code;
  if (!fs::exists(path, code)) return std::nullopt;
  const Json json = read_json_file(path);
  const std::string where = path.string();
  if (!json.is_object())
    throw data_error(where + ": not a JSON object", "remove the file, or set overwrite_output_dir = true");
  RunRecord record;
  std::optional<std::int64_t> exit_code;
  read_field(json, "state", where, record.state);
  read_field(json, "step", where, record.step);
  read_field(json, "checkpoint", where, record.checkpoint);
  read_field(json, "best_step", where, record.best_step);
  read_field(json, "best_metric", where, record.best_metric);
  read_field(json, "best_checkpoint", where, record.best_checkpoint);
  read_field(json, "exit", where, exit_code);
  read_field(json, "reason", where, record.reason);
  read_field(json, "hub", where, record.hub);
  if (exit_code) record.exit = static_cast<int>(*exit_code);
  if (const auto suspects = json.find("suspects"); suspects != json.end() && !suspects->is_null()) {
    if (!suspects->is_array()) throw field_error(where, "suspects", "a list");
    for (const Json& suspect : *suspects) {
      if (!suspect.is_string()) throw field_error(where, "suspects", "a list of strings");
      record.suspects.push_back(suspect.get<std::string>());
    }
  }
  return record;
}

void write_results(const fs::path& output_dir, const std::string& split, const Json& metrics) {
  replace_file(output_dir / (split + "_results.json"), metrics.dump(4));
  const fs::path path = output_dir / "all_results.json";
  std::error_code code;
  Json all = fs::exists(path, code) ? read_json_file(path) : Json::object();
  if (!all.is_object()) throw data_error(path.string() + ": not a JSON object", "remove the file");
  all.update(metrics);
  replace_file(path, all.dump(4));
}

}  // namespace dtrain
