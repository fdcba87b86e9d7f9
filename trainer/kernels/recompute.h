// recompute: a part of the model whose activations are not kept but computed again in the backward pass ("gradient
// checkpointing", Chen et al. 2016). Random draws are counter-based (dropout.h), so the second pass repeats the first.
#pragma once

#include <functional>

#include <ATen/core/Tensor.h>

namespace dtrain {

// A pure function of x and of parameters.
using ModelPart = std::function<at::Tensor(const at::Tensor& x)>;

// part(x). Gradients of parameters inside are accumulated where they are, as a backward pass of their own.
[[nodiscard]] at::Tensor recompute(ModelPart part, const at::Tensor& x);

}  // namespace dtrain
