#include "trainer/kernels/token_layout.h"

#include <algorithm>
#include <limits>
#include <utility>

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include "core/error.h"

namespace dtrain {
namespace {

TokenSpan find_span(const bool* flag, std::int64_t length, bool causal) {
  std::int64_t first = 0;
  std::int64_t last = length;
  while (causal && first + 1 < length && !flag[first]) ++first;
  while (last > first + 1 && !flag[last - 1]) --last;
  TokenSpan span;
  span.first = first;
  span.count = last - first;
  // A single token looks at itself, whatever the mask says.
  if (span.count == 1 || std::count(flag + first, flag + last, true) == span.count) return span;
  span.holes = at::zeros({span.count}, at::kFloat);
  auto* hole = span.holes.mutable_data_ptr<float>();
  for (std::int64_t i = 0; i < span.count; ++i) {
    if (!flag[first + i]) hole[i] = -std::numeric_limits<float>::infinity();
  }
  return span;
}

}  // namespace

TokenLayoutPtr make_token_layout(const at::Tensor& mask, std::int64_t batch, std::int64_t length, c10::Device device,
                                 bool causal, bool packed) {
  auto layout = std::make_shared<TokenLayout>();
  layout->batch = batch;
  layout->length = length;
  layout->rows = batch * length;
  if (!device.is_cpu()) return layout;

  layout->packed = packed && mask.defined();
  const at::Tensor flags = mask.defined() ? mask.to(at::kBool).contiguous() : mask;
  std::int64_t row = 0;
  for (std::int64_t b = 0; b < batch; ++b) {
    TokenSpan span;
    span.count = length;
    if (flags.defined()) span = find_span(flags.const_data_ptr<bool>() + b * length, length, causal);
    const std::int64_t first = layout->packed ? span.first : 0;
    const std::int64_t count = layout->packed ? span.count : length;
    span.row = row + span.first - first;
    for (std::int64_t i = 0; i < count; ++i) {
      layout->example.push_back(static_cast<std::uint32_t>(b));
      layout->position.push_back(static_cast<std::uint32_t>(first + i));
    }
    row += count;
    layout->spans.push_back(std::move(span));
  }
  layout->rows = row;
  return layout;
}

TokenLayoutPtr one_row_each(const TokenLayout& layout, const std::vector<std::int64_t>& positions) {
  DTRAIN_CHECK(std::cmp_equal(positions.size(), layout.batch), "{} positions for {} examples", positions.size(),
               layout.batch);
  auto picked = std::make_shared<TokenLayout>();
  picked->batch = layout.batch;
  picked->length = 1;
  picked->rows = layout.batch;
  if (layout.spans.empty()) return picked;
  for (std::size_t b = 0; b < positions.size(); ++b) {
    picked->spans.push_back({static_cast<std::int64_t>(b), positions[b], 1, {}});
    picked->example.push_back(static_cast<std::uint32_t>(b));
    picked->position.push_back(static_cast<std::uint32_t>(positions[b]));
  }
  return picked;
}

at::Tensor rows_of(const TokenLayout& layout, const std::vector<std::int64_t>& positions) {
  at::Tensor rows = at::empty({layout.batch}, at::kLong);
  auto* row = rows.mutable_data_ptr<std::int64_t>();
  for (std::size_t b = 0; b < positions.size(); ++b) {
    const TokenSpan& span = layout.spans[b];
    DTRAIN_CHECK(span.holds(positions[b]), "position {} of example {} is padding", positions[b], b);
    row[b] = span.row + positions[b] - span.first;
  }
  return rows;
}

at::Tensor token_values(const TokenLayout& layout, const at::Tensor& padded) {
  if (!layout.packed) return padded.reshape({layout.rows});
  const at::Tensor from = padded.to(at::kLong).contiguous();
  at::Tensor values = at::empty({layout.rows}, at::kLong);
  auto* out = values.mutable_data_ptr<std::int64_t>();
  for (std::int64_t b = 0; b < layout.batch; ++b) {
    const TokenSpan& span = layout.spans[static_cast<std::size_t>(b)];
    out = std::copy_n(from.const_data_ptr<std::int64_t>() + b * layout.length + span.first, span.count, out);
  }
  return values;
}

at::Tensor token_positions(const TokenLayout& layout, c10::Device device) {
  if (!layout.packed) {
    return at::arange(layout.length, at::TensorOptions(at::kLong).device(device))
        .expand({layout.batch, layout.length})
        .reshape({layout.rows});
  }
  at::Tensor positions = at::empty({layout.rows}, at::kLong);
  std::copy(layout.position.begin(), layout.position.end(), positions.mutable_data_ptr<std::int64_t>());
  return positions;
}

}  // namespace dtrain
