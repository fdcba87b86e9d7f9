// Attention in bfloat16 for AVX-512 BF16; see rows_avx2.cpp about the pragma.
#include "trainer/kernels/cpu/heads.h"

#if defined(__x86_64__)
#include <immintrin.h>

#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma")

namespace dtrain::cpu {
namespace {

// clang-format off
#include "trainer/kernels/cpu/lanes_template_avx512.h"
#include "trainer/kernels/cpu/lanes_template.h"
#include "trainer/kernels/cpu/head_shared_template.h"
#include "trainer/kernels/cpu/head_bfloat16_template.h"
// clang-format on

struct Avx512Dots {
  static constexpr std::int64_t kRows = 8;
  static constexpr std::int64_t kColumns = 32;

  static void enter() {}
  static void leave() {}

  // 16 sums and 2 columns fill 18 of 32 registers; a pair of the left matrix is an operand in memory.
  static void block(const PairProduct& p, std::int64_t row, std::int64_t column) {
    float* c = p.c + row * p.c_row + column;
    __m512 sum[kRows][2];
#pragma GCC unroll 8
    for (int m = 0; m < kRows; ++m) {
#pragma GCC unroll 2
      for (int n = 0; n < 2; ++n) sum[m][n] = p.accumulate ? _mm512_loadu_ps(c + m * p.c_row + 16 * n) : Avx512::zero();
    }
    for (std::int64_t k = 0; k < p.depth / 2; ++k) {
      __m512bh b[2];
#pragma GCC unroll 2
      for (int n = 0; n < 2; ++n) {
        b[n] = reinterpret_cast<__m512bh>(_mm512_loadu_si512(p.b + k * p.b_row + column + 16 * n));
      }
#pragma GCC unroll 8
      for (int m = 0; m < kRows; ++m) {
        const std::uint32_t pair = *reinterpret_cast<const PairBits*>(p.a + (row + m) * p.a_row + 2 * k);
        const auto a = reinterpret_cast<__m512bh>(_mm512_set1_epi32(static_cast<int>(pair)));
#pragma GCC unroll 2
        for (int n = 0; n < 2; ++n) sum[m][n] = _mm512_dpbf16_ps(sum[m][n], a, b[n]);
      }
    }
#pragma GCC unroll 8
    for (int m = 0; m < kRows; ++m) {
#pragma GCC unroll 2
      for (int n = 0; n < 2; ++n) _mm512_storeu_ps(c + m * p.c_row + 16 * n, sum[m][n]);
    }
  }
};

}  // namespace

const Bfloat16HeadKernels* avx512_bfloat16_head_kernels() {
  static constexpr Bfloat16HeadKernels kKernels{"AVX-512 BF16", bfloat16_head_forward<Avx512, Avx512Dots>,
                                                bfloat16_head_backward<Avx512, Avx512Dots>};
  return &kKernels;
}

}  // namespace dtrain::cpu

#else

namespace dtrain::cpu {
const Bfloat16HeadKernels* avx512_bfloat16_head_kernels() { return nullptr; }
}  // namespace dtrain::cpu

#endif
