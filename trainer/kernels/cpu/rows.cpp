// The row kernels in plain C++, for every machine and as the reference for the others; and the choice between them.
#include "trainer/kernels/cpu/rows.h"

#include <cstring>

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include "core/random.h"
#include "trainer/kernels/cpu/instruction_sets.h"

namespace dtrain::cpu {
namespace {

template <Type kType>
struct StoredOf {
  using type = float;
};
template <>
struct StoredOf<Type::kBfloat16> {
  using type = c10::BFloat16;
};
template <>
struct StoredOf<Type::kHalf> {
  using type = c10::Half;
};

// Calls visit(i, kept) for every column i - first of the row, in order.
template <class Visit>
void for_each_column(const RowDraw& draw, std::int64_t first, std::int64_t count, Visit visit) {
  std::int64_t column = first;
  while (column < first + count) {
    const PhiloxCounter words = philox4x32({static_cast<std::uint32_t>(column / 8), draw.row, draw.slot, draw.site},
                                           {draw.key[0], draw.key[1]});
    const std::int64_t block_end = (column / 8 + 1) * 8;
    for (; column < block_end && column < first + count; ++column) {
      const auto element = static_cast<unsigned>(column % 8);
      const std::uint32_t bits = (words[element / 2] >> (16 * (element % 2))) & 0xFFFF;
      visit(column - first, bits >= draw.threshold);
    }
  }
}

template <Type kIn, Type kOut>
void dropout_row(const RowDraw& draw, const void* input, const void* residual, void* output, std::int64_t count) {
  using Out = typename StoredOf<kOut>::type;
  const auto* in = static_cast<const typename StoredOf<kIn>::type*>(input);
  const auto* added = static_cast<const Out*>(residual);
  auto* out = static_cast<Out*>(output);
  for_each_column(draw, 0, count, [&](std::int64_t i, bool keep) {
    const float value = (keep ? static_cast<float>(in[i]) : 0.0F) * draw.scale;
    out[i] = static_cast<Out>(added == nullptr ? value : static_cast<float>(added[i]) + value);
  });
}

void attention_row(const RowDraw& draw, float* probability, std::int64_t first, std::int64_t count) {
  for_each_column(draw, first, count,
                  [&](std::int64_t i, bool keep) { probability[i] = keep ? probability[i] * draw.scale : 0.0F; });
}

void attention_grad_row(const RowDraw& draw, float* probability, float* gradient, float delta, std::int64_t first,
                        std::int64_t count) {
  for_each_column(draw, first, count, [&](std::int64_t i, bool keep) {
    const float p = probability[i];
    probability[i] = keep ? p * draw.scale : 0.0F;
    gradient[i] = p * ((keep ? gradient[i] * draw.scale : 0.0F) - delta);
  });
}

void widen_row(const void* from, float* to, std::int64_t count) {
  const auto* in = static_cast<const c10::BFloat16*>(from);
  for (std::int64_t i = 0; i < count; ++i) to[i] = static_cast<float>(in[i]);
}

void narrow_row(const float* from, void* to, std::int64_t count) {
  auto* out = static_cast<c10::BFloat16*>(to);
  for (std::int64_t i = 0; i < count; ++i) out[i] = static_cast<c10::BFloat16>(from[i]);
}

}  // namespace

const RowKernels& generic_row_kernels() {
  constexpr Type kF = Type::kFloat;
  constexpr Type kB = Type::kBfloat16;
  constexpr Type kH = Type::kHalf;
  static constexpr RowKernels kKernels{"generic",
                                       {{dropout_row<kF, kF>, dropout_row<kF, kB>, dropout_row<kF, kH>},
                                        {dropout_row<kB, kF>, dropout_row<kB, kB>, dropout_row<kB, kH>},
                                        {dropout_row<kH, kF>, dropout_row<kH, kB>, dropout_row<kH, kH>}},
                                       attention_row,
                                       attention_grad_row,
                                       widen_row,
                                       narrow_row};
  return kKernels;
}

const std::vector<const RowKernels*>& available_row_kernels() {
  static const auto available = runnable(&generic_row_kernels(), avx2_row_kernels(), avx512_row_kernels());
  return available;
}

const RowKernels& row_kernels() { return *available_row_kernels().back(); }

}  // namespace dtrain::cpu
