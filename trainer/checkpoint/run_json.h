// run.json and the *_results.json files: what a run tells scripts, supervisors and people when it is over (or dead).
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"

namespace dtrain {

// run.json, the authority about a run: replaced atomically, so a reader sees one whole record. null: not known (yet).
struct RunRecord {
  std::string state = "running";  // running, done, preempted, failed
  std::int64_t step = 0;
  std::optional<std::string> checkpoint = std::nullopt;  // newest published one, e.g. "checkpoint-50"
  std::optional<std::int64_t> best_step = std::nullopt;
  std::optional<double> best_metric = std::nullopt;
  std::optional<std::string> best_checkpoint = std::nullopt;
  std::optional<int> exit = std::nullopt;         // exit code of all ranks
  std::string reason = {};                        // one line; empty while all is well
  std::vector<std::string> suspects = {};         // ranks and hosts named by the watchdog
  std::optional<std::string> hub = std::nullopt;  // with push_to_hub, at the end: "uploaded to ..." or "failed: ..."
};

// Adds "attempt", counted by `dtrain launch` or by Slurm.
void write_run_record(const std::filesystem::path& output_dir, const RunRecord& record);
// The same for the progress of a run that goes on, as far as the caller knows: when run.json says by now that it has
// failed (another rank, or the watchdog, has written that), its end stays as it is written there.
void update_run_record(const std::filesystem::path& output_dir, RunRecord record);
// Nothing when there is no run.json; Error(kData) with file and key when it cannot be read.
[[nodiscard]] std::optional<RunRecord> read_run_record(const std::filesystem::path& output_dir);

// Writes <split>_results.json and merges `metrics` into all_results.json, as Trainer.save_metrics does (indent 4,
// sorted).
void write_results(const std::filesystem::path& output_dir, const std::string& split, const Json& metrics);

}  // namespace dtrain
