// Linear layers in bfloat16 on the CPU, as autocast computes them: activations and weights are rounded to bfloat16,
// sums are float32, results bfloat16. The products are LibTorch's (oneDNN). Beside autocast's:
//   - The number of rows is rounded up. oneDNN compiles a product for each shape, for about a millisecond, and batches
//     without padding would have a new one in every step.
//     Activations of bfloat16_rows() are read in place.
//   - GELU and its derivative are computed in float32 by cpu/dense.h, a row at a time in the cache.
//   - Gradients of biases are float32 sums.
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "trainer/kernels/dense.h"

namespace dtrain {

// [rows, columns] for the input of a linear layer. Behind the rows lies what it reads besides, zeros.
[[nodiscard]] at::Tensor bfloat16_rows(std::int64_t rows, std::int64_t columns);

// Whether autocast asks for bfloat16 and the shapes are worth it. For others dense() is what autocast makes of it.
[[nodiscard]] bool fits_bfloat16(const at::Tensor& x, const std::vector<DensePart>& parts);

// dense() and dense_gelu() for what fits: `x` [rows, in] float32 or bfloat16, the result [rows, outs] bfloat16.
[[nodiscard]] at::Tensor dense_bfloat16(const at::Tensor& x, const std::vector<DensePart>& parts, WeightOrder order);
[[nodiscard]] at::Tensor dense_gelu_bfloat16(const at::Tensor& x, const DensePart& part, WeightOrder order, bool tanh);

}  // namespace dtrain
