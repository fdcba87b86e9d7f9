// The choice between the attention kernels, and what all of them need.
#include "trainer/kernels/cpu/heads.h"

#include "trainer/kernels/cpu/instruction_sets.h"

namespace dtrain::cpu {
namespace {

std::int64_t padded_keys(std::int64_t keys) {
  constexpr std::int64_t kWidest = 32;  // floats of two vectors, columns of a tile in bfloat16
  return (keys + kWidest - 1) / kWidest * kWidest;
}

}  // namespace

template <>
std::int64_t head_scratch<float>(std::int64_t keys, std::int64_t head_size) {
  const std::int64_t padded = padded_keys(keys);
  return 2 * head_size * padded + 3 * head_size * keys + 2 * kHeadQueries<float> * padded;
}

template <>
std::int64_t head_scratch<Bfloat16>(std::int64_t keys, std::int64_t head_size) {
  constexpr std::int64_t kQueries = kHeadQueries<Bfloat16>;
  constexpr std::int64_t kAlignment = 16;
  const std::int64_t padded = padded_keys(keys);
  // Backward: k and v packed three times, the sums of two; six forms of the scores; six of a block's rows.
  const std::int64_t by_key = 3 * head_size / 2 * padded + 2 * head_size * padded;
  const std::int64_t by_score = kQueries * padded * 2 + 4 * kQueries / 2 * padded;
  const std::int64_t by_query = 5 * kQueries / 2 * head_size + kQueries * head_size;
  return kAlignment + by_key + by_score + by_query;
}

const std::vector<const HeadKernels*>& available_head_kernels() {
  static const auto available = runnable<HeadKernels>(nullptr, avx2_head_kernels(), avx512_head_kernels());
  return available;
}

const HeadKernels* head_kernels() { return fastest(available_head_kernels()); }

const std::vector<const Bfloat16HeadKernels*>& available_bfloat16_head_kernels() {
  static const auto available = [] {
    auto result = runnable<Bfloat16HeadKernels>(nullptr, avx2_bfloat16_head_kernels(), nullptr);
    if (has_avx512_bfloat16()) result.push_back(avx512_bfloat16_head_kernels());
    if (has_amx_bfloat16()) result.push_back(amx_bfloat16_head_kernels());
    return result;
  }();
  return available;
}

const Bfloat16HeadKernels* bfloat16_head_kernels() { return fastest(available_bfloat16_head_kernels()); }

}  // namespace dtrain::cpu
