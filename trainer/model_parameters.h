// The parameters of a Model as the optimizer sees them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "trainer/models/model.h"
#include "trainer/optim/parameter_groups.h"

namespace dtrain {

// Parameters whose stored name matches one of `patterns` (parameter_groups.h) require no gradient any more. Throws
// Error(kUsage) for a pattern that matches none, and when no parameter is left to train.
void freeze_parameters(const Model& model, const std::vector<std::string>& patterns);

// All that require a gradient, named as in model.safetensors, the decayed ones first; each group in order of
// registration. Not decayed: what name_is_decayed() says, and all parameters of modules whose class is a LayerNorm.
[[nodiscard]] std::vector<NamedParameter> optimizer_parameters(const Model& model);

// Trainable elements, and those outside embedding tables (every parameter but those named *_embeddings.weight, wte,
// wpe).
[[nodiscard]] std::int64_t trainable_elements(const Model& model);
[[nodiscard]] std::int64_t computing_parameters(const Model& model);

}  // namespace dtrain
