// The choice between the attention kernels, and what all of them need.
#include "trainer/kernels/cpu/heads.h"

#include "trainer/kernels/cpu/instruction_sets.h"

namespace dtrain::cpu {

std::int64_t head_scratch(std::int64_t keys, std::int64_t head_size) {
  constexpr std::int64_t kWidest = 32;  // floats of two vectors
  const std::int64_t padded = (keys + kWidest - 1) / kWidest * kWidest;
  return 2 * head_size * padded + 3 * head_size * keys + 2 * kHeadQueries * padded;
}

const std::vector<const HeadKernels*>& available_head_kernels() {
  static const auto available = runnable<HeadKernels>(nullptr, avx2_head_kernels(), avx512_head_kernels());
  return available;
}

const HeadKernels* head_kernels() {
  return available_head_kernels().empty() ? nullptr : available_head_kernels().back();
}

}  // namespace dtrain::cpu
