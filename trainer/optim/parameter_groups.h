// Which parameters the Trainer decays: all that require a gradient, except those of a LayerNorm and those whose name
// says bias or norm (Trainer.get_decay_parameter_names). Order: the decayed ones first, each in order of registration.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

namespace dtrain {

struct NamedParameter {
  std::string name;
  at::Tensor value;
  bool decay = true;
};

// `is_layer_norm` names come from the model: parameters that sit directly in a LayerNorm module.
[[nodiscard]] bool name_is_decayed(const std::string& name);

}  // namespace dtrain
