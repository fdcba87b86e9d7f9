// SweepRecord: what a sweep has tried and found, in sweep.json of its folder: the authority, replaced atomically after
// every trial. sweep.csv and the table on the terminal are made from it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "configs/sweep_settings.h"
#include "launcher/sweep_methods.h"

namespace dtrain {

struct Trial {
  std::int64_t number = 0;
  std::string state = "running";  // running (or cut short: it goes on next time), done, failed
  Point point = {};
  std::optional<double> value = std::nullopt;  // of the metric
  int exit = 0;
  std::string reason = {};  // of a failure
  double seconds = 0;       // of its last attempt

  [[nodiscard]] bool is_finished() const { return state != "running"; }
};

struct SweepRecord {
  std::vector<Trial> trials;  // by number

  [[nodiscard]] std::vector<Observation> observations() const;
  // The first of the best; nullptr when none is done.
  [[nodiscard]] const Trial* best(bool maximize) const;
};

// "trial-007": the folder of the run, and the stem of its .toml and .log.
[[nodiscard]] std::string trial_name(std::int64_t number);

[[nodiscard]] Json to_json(const SweepRecord& record, const SweepSettings& sweep);
// Throws Error(kData) when the text is no record, Error(kDisagree) when it is that of another sweep.
[[nodiscard]] SweepRecord read_sweep_record(const std::filesystem::path& file, const SweepSettings& sweep);

// One row for each trial, with a column for each parameter.
[[nodiscard]] std::string to_csv(const SweepRecord& record, const SweepSettings& sweep);
// The trials from the best to the worst, then the failed ones.
[[nodiscard]] std::string to_table(const SweepRecord& record, const SweepSettings& sweep);

// "training.learning_rate = 0.0001, training.warmup_steps = 10"
[[nodiscard]] std::string point_text(const SweepSettings& sweep, const Point& point);

}  // namespace dtrain
