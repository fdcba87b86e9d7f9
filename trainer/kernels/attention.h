// Multi-head attention with dropout of the probabilities: softmax(scale q k^T + mask), dropout, times v.
// Differentiable. On the CPU one head of one example at a time, so that its scores stay in the cache, computed in
// float32 whatever the type of the inputs; probabilities are not stored but computed again in the backward pass,
// together with the mask.
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

#include "trainer/kernels/dropout.h"
#include "trainer/kernels/token_layout.h"

namespace dtrain {

struct AttentionOptions {
  std::int64_t num_heads = 1;
  double scale = 1;
  bool causal = false;
  double dropout = 0;
  std::uint32_t site = 0;
};

// `q`, `k`, `v`: [rows, heads * head size], the rows as `layout` says, the last dimension contiguous. Result: the shape
// of q, contiguous; on the CPU bfloat16 where q is and the kernels are (sums are float32), else float32. Tokens look at
// the tokens of their span; rows outside the spans neither look nor are looked at: their result is 0 on the CPU and of
// no meaning elsewhere. With `queries` the rows of q, and so of the result, are another layout's: one row for each
// example, made by one_row_each(), or, without `causal`, any tokens that look at those of `layout`, as those of a
// decoder do. The dropout mask of a probability has row number head * 2^20 + query position and the key position as
// column. `mask` is [batch, length], what `layout` was made from; only devices other than the CPU read it. Thread-safe.
[[nodiscard]] at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                   const TokenLayoutPtr& layout, const at::Tensor& mask,
                                   const AttentionOptions& options, const DropoutKeys& keys,
                                   const TokenLayoutPtr& queries = nullptr);

// The same from LibTorch's operations, as used on devices other than the CPU. `q` is [batch, queries, heads * head
// size], `k` and `v` are [batch, length, heads * head size]; fewer queries than keys are the first positions, and not
// with `causal`. `mask` is [batch, length] (0: nobody may look at this position) or undefined. The result has the shape
// of q.
[[nodiscard]] at::Tensor composed_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                            const at::Tensor& mask, const AttentionOptions& options,
                                            const DropoutKeys& keys);

}  // namespace dtrain
