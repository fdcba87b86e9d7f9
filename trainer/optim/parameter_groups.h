// Which parameters the Trainer decays: all that require a gradient, except those of a LayerNorm module and those whose
// name says bias or norm (Trainer.get_decay_parameter_names). Order in an optimizer: the decayed ones first, each in
// order of registration, as in optimizer.pt.
#pragma once

#include <string>

#include <ATen/core/Tensor.h>

namespace dtrain {

struct NamedParameter {
  std::string name;
  at::Tensor value;
  bool decay = true;
};

// Whether the dotted `name` alone allows decay. It does not know the type of the module: parameters that sit directly
// in a LayerNorm are exempt too, which is for whoever walks the module to see (GPT-2's ln_1.weight is exempt by type
// only).
[[nodiscard]] bool name_is_decayed(const std::string& name);

}  // namespace dtrain
