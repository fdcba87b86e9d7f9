// TokenLayout: which tokens of a padded micro-batch are computed, and where their rows lie in activations of the shape
// [rows, hidden].
//
// Packed, the real tokens of all examples follow each other and padding has no rows: nothing is computed for it, and
// results and random draws are the same (ModernBERT, NVIDIA's BERT and others call this unpadding). Padded, every
// position has a row, as in transformers. Immutable; thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include <ATen/core/Tensor.h>

namespace dtrain {

// The tokens of one example that look at each other: positions [first, first + count), in the rows from `row` on.
struct TokenSpan {
  std::int64_t row = 0;
  std::int64_t first = 0;
  std::int64_t count = 0;
  at::Tensor holes;  // [count] float32, 0 or -infinity, when padding lies between real tokens; else undefined

  [[nodiscard]] bool holds(std::int64_t at) const { return at >= first && at < first + count; }
};

struct TokenLayout {
  std::int64_t batch = 0;
  std::int64_t length = 0;  // of the padded micro-batch
  std::int64_t rows = 0;
  bool packed = false;
  // What follows is empty on devices other than the CPU, where all positions have rows and kernels read the mask.
  std::vector<TokenSpan> spans;         // by example
  std::vector<std::uint32_t> example;   // by row
  std::vector<std::uint32_t> position;  // by row
};

using TokenLayoutPtr = std::shared_ptr<const TokenLayout>;

// `mask` is [batch, length], 0 for padding, or undefined. With `causal` the span of an example begins at its first real
// token, otherwise at its first position: BERT pools that one, real or not. It ends with the last real token and has at
// least one position. `packed` is for the CPU only.
[[nodiscard]] TokenLayoutPtr make_token_layout(const at::Tensor& mask, std::int64_t batch, std::int64_t length,
                                               c10::Device device, bool causal, bool packed);

// One row for each example: the token at positions[example], which lies in its span.
[[nodiscard]] TokenLayoutPtr one_row_each(const TokenLayout& layout, const std::vector<std::int64_t>& positions);
// [batch] int64: where those rows are in activations of `layout`.
[[nodiscard]] at::Tensor rows_of(const TokenLayout& layout, const std::vector<std::int64_t>& positions);

// [rows]: the values of a padded [batch, length] tensor that have rows.
[[nodiscard]] at::Tensor token_values(const TokenLayout& layout, const at::Tensor& padded);
// [rows] int64
[[nodiscard]] at::Tensor token_positions(const TokenLayout& layout, c10::Device device);

}  // namespace dtrain
