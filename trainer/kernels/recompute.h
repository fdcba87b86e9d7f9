// recompute: a part of the model whose activations are not kept but computed again in the backward pass ("gradient
// checkpointing", Chen et al. 2016). Random draws are counter-based (dropout.h), so the second pass repeats the first.
#pragma once

#include <functional>
#include <vector>

#include <ATen/core/Tensor.h>

namespace dtrain {

// A pure function of its inputs and of parameters.
using ModelPart = std::function<at::Tensor(const std::vector<at::Tensor>& inputs)>;

// part(inputs). Gradients of parameters inside are accumulated where they are, as a backward pass of their own.
[[nodiscard]] at::Tensor recompute(ModelPart part, std::vector<at::Tensor> inputs);

}  // namespace dtrain
