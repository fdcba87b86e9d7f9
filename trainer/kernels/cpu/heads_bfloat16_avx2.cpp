// Attention in bfloat16 for AVX2, which has no instruction that multiplies such numbers: each half of a pair becomes a
// float. For tests, and for those who ask for bfloat16 where it does not pay. See rows_avx2.cpp about the pragma.
#include "trainer/kernels/cpu/heads.h"

#if defined(__x86_64__)
#include <immintrin.h>

#pragma GCC target("avx2,fma")

namespace dtrain::cpu {
namespace {

// clang-format off
#include "trainer/kernels/cpu/lanes_template_avx2.h"
#include "trainer/kernels/cpu/lanes_template.h"
#include "trainer/kernels/cpu/head_shared_template.h"
#include "trainer/kernels/cpu/head_bfloat16_template.h"
// clang-format on

struct Avx2Dots {
  static constexpr std::int64_t kRows = 4;
  static constexpr std::int64_t kColumns = 16;
  using Pairs = __m256i;

  static void enter() {}
  static void leave() {}

  static Pairs load(const std::uint32_t* from) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)); }
  static Pairs broadcast(std::uint32_t pair) { return _mm256_set1_epi32(static_cast<int>(pair)); }
  static __m256 multiply_add(Pairs a, Pairs b, __m256 sum) {
    return _mm256_fmadd_ps(odd(a), odd(b), _mm256_fmadd_ps(even(a), even(b), sum));
  }
  static __m256 even(Pairs pairs) { return _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16)); }
  static __m256 odd(Pairs pairs) {
    return _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32(static_cast<int>(0xFFFF0000))));
  }

  static void block(const PairProduct& p, std::int64_t row, std::int64_t column) {
    pair_tile<Avx2, Avx2Dots, kRows, 2>(p, row, column);
  }
};

}  // namespace

const Bfloat16HeadKernels* avx2_bfloat16_head_kernels() {
  static constexpr Bfloat16HeadKernels kKernels{"AVX2", bfloat16_head_forward<Avx2, Avx2Dots>,
                                                bfloat16_head_backward<Avx2, Avx2Dots>};
  return &kKernels;
}

}  // namespace dtrain::cpu

#else

namespace dtrain::cpu {
const Bfloat16HeadKernels* avx2_bfloat16_head_kernels() { return nullptr; }
}  // namespace dtrain::cpu

#endif
