// Sums of rows of embedding tables. Differentiable.
//
// The gradient of a table is computed only for the rows that were looked up, each the sum of its tokens in the order of
// the tokens: a vocabulary has tens of thousands of rows, and a step touches a thousand or two. It reaches a
// gradient that is already there, as a row-wise addition; where there is none yet it becomes an ordinary dense one.
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "trainer/kernels/dropout.h"

namespace dtrain {

struct Lookup {
  at::Tensor table;                 // [count, size] float32
  at::Tensor ids;                   // [rows] or [1] (the same row for all) int64, on the table's device
  std::int64_t padding_index = -1;  // the row that receives no gradient
};

// [rows, size]: table 0's row + table 1's row + ..., added in this order. Ids must be rows.
[[nodiscard]] at::Tensor embedding_sum(const std::vector<Lookup>& lookups);

// Uniform noise in +-alpha / sqrt(length * size) for each number of `embedded` [rows, size], length being the number of
// the example's own tokens (NEFTune, Jain et al. 2023): those that `mask` [batch, length] does not hide, all without
// one. Drawn as dropout masks are: from what `keys` say of example and position.
[[nodiscard]] at::Tensor embedding_noise(const at::Tensor& embedded, double alpha, const DropoutKeys& keys,
                                         const at::Tensor& mask);

}  // namespace dtrain
