// SweepSettings: the section [sweep] of a configuration file, which `dtrain sweep` reads and a training does not. A
// plain value; what read_sweep_settings returns is complete and checked.
//
//   [sweep]
//   method = "tpe"
//   trials = 20
//   metric = "accuracy"
//   "training.learning_rate" = { low = 1e-5, high = 1e-3, log = true }
//   "training.warmup_steps" = { low = 0, high = 100, step = 10 }
//   "training.optim" = { values = ["adamw_torch", "lion"] }
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "configs/train_config.h"
#include "core/json.h"

namespace dtrain {

// One setting that is searched: a list of values, or a range of numbers.
struct SweepParameter {
  enum class Kind { kChoice, kFloat, kInteger };
  std::string name;  // "section.key"
  Kind kind = Kind::kChoice;
  std::vector<Json> values = {};  // kChoice: at least one
  double low = 0;
  double high = 0;  // included; low + a multiple of step, where there is a step
  double step = 0;  // 0: none; of integers at least 1
  bool log = false;

  // Whether there is nothing to choose.
  [[nodiscard]] bool is_single() const;
};

struct SweepSettings {
  std::string method = "random";  // grid, random or tpe
  std::int64_t trials = 20;       // grid: of all points at most so many, the default is all
  std::string metric;             // with "eval_"
  bool maximize = false;
  std::int64_t seed = 42;
  std::int64_t startup_trials = 10;  // tpe: random trials before the first estimate
  std::vector<SweepParameter> space;

  // What makes two sweeps the same; without the number of trials.
  [[nodiscard]] Json identity() const;
};

// `overrides` are those of "sweep.key=value" among the command line's. `base` is the resolved configuration of the
// file. Throws Error(kUsage) naming file, line and key: unknown keys, empty ranges, values that the setting refuses, a
// metric that is not computed.
[[nodiscard]] SweepSettings read_sweep_settings(std::string_view toml_bytes, const std::string& file_name,
                                                const std::vector<std::string>& overrides, const TrainConfig& base);

// Whether an override "key=value" of the command line belongs to [sweep].
[[nodiscard]] bool is_sweep_override(std::string_view argument);

// The number of points of the grid; 0 when a range has no steps.
[[nodiscard]] std::int64_t grid_size(const std::vector<SweepParameter>& space);

}  // namespace dtrain
