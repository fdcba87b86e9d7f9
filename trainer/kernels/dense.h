// Linear layers, y = x W^T + b, alone or with GELU. Differentiable.
//
// On the CPU in float32 with AVX2 or AVX-512 (cpu/dense.h) the bias is what the sums of the product begin with, GELU is
// computed while the rows are in the cache, and rows are dealt to threads in small pieces, since the cores of a shared
// machine are seldom alike. Under autocast to bfloat16 see dense_bfloat16.h. Elsewhere, and for few rows or odd widths,
// it is LibTorch's linear and gelu.
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

namespace dtrain {

enum class WeightOrder {
  kOutIn,  // [out, in], torch.nn.Linear
  kInOut   // [in, out], GPT-2's Conv1D
};

struct DensePart {
  at::Tensor weight;
  at::Tensor bias;  // [out]; undefined where it is the only part
};

// `x` is [rows, in]; the result [rows, sum of the parts' outs], the parts side by side.
[[nodiscard]] at::Tensor dense(const at::Tensor& x, const std::vector<DensePart>& parts, WeightOrder order);

// gelu(dense(x, {part})); `tanh`: the form with tanh.
[[nodiscard]] at::Tensor dense_gelu(const at::Tensor& x, const DensePart& part, WeightOrder order, bool tanh);

// x.chunk(count, 1), whose backward pass takes the gradients as they are when they already lie side by side in one
// tensor.
[[nodiscard]] std::vector<at::Tensor> split_columns(const at::Tensor& x, std::int64_t count);

}  // namespace dtrain
