// What all optimizers do with their parameters and with their state in a checkpoint.
#pragma once

#include <span>
#include <vector>

#include "trainer/models/safetensors.h"
#include "trainer/optim/parameter_groups.h"

namespace dtrain {

// All float32, dense, contiguous and on one device; a defect otherwise.
void check_parameters(const std::vector<NamedParameter>& parameters);

[[nodiscard]] bool has_gradient(const at::Tensor& parameter);

[[nodiscard]] double learning_rate_of(const NamedParameter& parameter, std::span<const double> learning_rates);
// `weight_decay` is what decayed parameters have that no group gives another one.
[[nodiscard]] double weight_decay_of(const NamedParameter& parameter, double weight_decay);

// Copies the tensors of the same names into `state`. Throws Error(kData) when one is missing, has another shape or type
// or is a negative ".step"; then nothing has been copied.
void load_optimizer_state(const NamedTensors& state, const SafetensorsFile& file);
// The first half of it: only the names, shapes and types of `state` count, its tensors may be on the meta device.
void check_optimizer_state(const NamedTensors& state, const SafetensorsFile& file);

}  // namespace dtrain
