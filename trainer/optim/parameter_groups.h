// Which parameters the Trainer decays: all that require a gradient, except those of a LayerNorm module and those whose
// name says bias or norm (Trainer.get_decay_parameter_names). Order in an optimizer: the decayed ones first, each in
// order of registration, as in optimizer.pt. And groups by name pattern, with a rate and a weight decay of their own.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

namespace dtrain {

struct NamedParameter {
  std::string name;
  at::Tensor value;
  bool decay = true;
  std::size_t group = 0;                    // 0: none; its learning rate has this index
  std::optional<double> weight_decay = {};  // of its group, whatever `decay` says
};

// Whether the dotted `name` alone allows decay. It does not know the type of the module: parameters that sit directly
// in a LayerNorm are exempt too, which is for whoever walks the module to see (GPT-2's ln_1.weight is exempt by type
// only).
[[nodiscard]] bool name_is_decayed(const std::string& name);

// Shell patterns (fnmatch): * any text, dots too, ? one character, [a-z] one of a range. `names`: of all parameters.
// The result says of each whether a pattern matches. Throws Error(kUsage) "<setting>: ..." with the nearest name for a
// pattern that matches none.
[[nodiscard]] std::vector<bool> matching_names(const std::vector<std::string>& patterns,
                                               const std::vector<std::string>& names, const std::string& setting);

struct GroupOptions {
  std::string pattern;
  std::optional<double> weight_decay;
};

// Puts each parameter into the first group (from 1) whose pattern matches its name. Throws Error(kUsage) for a group
// without a parameter.
void assign_groups(std::vector<NamedParameter>& parameters, const std::vector<GroupOptions>& groups);

}  // namespace dtrain
