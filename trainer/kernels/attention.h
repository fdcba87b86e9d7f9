// Multi-head attention with dropout of the probabilities: softmax(scale q k^T + mask), dropout, times v.
// Differentiable. On the CPU one head of one example at a time, so that its scores stay in the cache, computed in
// float32 whatever the type of the inputs; probabilities are not stored but computed again in the backward pass,
// together with the mask.
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

#include "trainer/kernels/dropout.h"

namespace dtrain {

struct AttentionOptions {
  std::int64_t num_heads = 1;
  double scale = 1;
  bool causal = false;
  double dropout = 0;
  std::uint32_t site = 0;
};

// `q`, `k`, `v`: [batch, length, heads * head size], the last dimension contiguous. `mask` is [batch, length] (0:
// nobody may look at this position) or undefined. Result: [batch, length, heads * head size], contiguous. The dropout
// mask of a probability has row number head * 2^20 + query position and the key position as column. Positions after the
// last real token, and with `causal` those before the first, neither look nor are looked at: their result is 0 on the
// CPU and of no meaning elsewhere. Other padding looks at what is real, as in transformers. Thread-safe.
[[nodiscard]] at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                   const at::Tensor& mask, const AttentionOptions& options, const DropoutKeys& keys);

// The same from LibTorch's operations, as used on devices other than the CPU.
[[nodiscard]] at::Tensor composed_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                            const at::Tensor& mask, const AttentionOptions& options,
                                            const DropoutKeys& keys);

}  // namespace dtrain
