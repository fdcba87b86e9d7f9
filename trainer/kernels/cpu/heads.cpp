// The choice between the attention kernels, and what all of them need.
#include "trainer/kernels/cpu/heads.h"

#include <array>
#include <cstddef>

namespace dtrain::cpu {
namespace {

struct Available {
  std::array<const HeadKernels*, 2> kernels{};
  std::size_t count = 0;
};

const Available& available() {
  static const Available result = [] {
    Available found;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
      found.kernels[found.count++] = avx2_head_kernels();
    }
    if (cpu_has_avx512()) {
      found.kernels[found.count++] = avx512_head_kernels();
    }
#endif
    return found;
  }();
  return result;
}

}  // namespace

std::int64_t head_scratch(std::int64_t keys, std::int64_t head_size) {
  constexpr std::int64_t kWidest = 32;  // floats of two vectors
  const std::int64_t padded = (keys + kWidest - 1) / kWidest * kWidest;
  return 2 * head_size * padded + 3 * head_size * keys + 2 * kHeadQueries * padded;
}

const HeadKernels* head_kernels() {
  return available().count == 0 ? nullptr : available().kernels[available().count - 1];
}

const HeadKernels* const* available_head_kernels(std::size_t& count) {
  count = available().count;
  return available().kernels.data();
}

}  // namespace dtrain::cpu
