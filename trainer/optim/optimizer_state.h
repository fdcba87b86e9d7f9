// What all optimizers do with their parameters and with their state in a checkpoint.
#pragma once

#include <vector>

#include "trainer/models/safetensors.h"
#include "trainer/optim/parameter_groups.h"

namespace dtrain {

// All float32, dense, contiguous and on one device; a defect otherwise.
void check_parameters(const std::vector<NamedParameter>& parameters);

[[nodiscard]] bool has_gradient(const at::Tensor& parameter);

// Copies the tensors of the same names into `state`. Throws Error(kData) when one is missing, has another shape or type
// or is a negative ".step"; then nothing has been copied.
void load_optimizer_state(const NamedTensors& state, const SafetensorsFile& file);

}  // namespace dtrain
