// training.parameter_groups as structs.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/json.h"

namespace dtrain {

struct ParameterGroup {
  std::string pattern;                  // of names in model.safetensors
  std::optional<double> learning_rate;  // peak; not set: training.learning_rate
  std::optional<double> weight_decay;   // of all its parameters; not set: as for parameters of no group
};

// Throws Error(kUsage) "group <number from 1>: <reason>" for a key, type or value that makes no sense.
[[nodiscard]] std::vector<ParameterGroup> parameter_groups(const std::vector<Json>& tables);

}  // namespace dtrain
