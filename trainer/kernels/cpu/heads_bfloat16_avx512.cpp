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
  using Pairs = __m512bh;

  static void enter() {}
  static void leave() {}

  static Pairs load(const std::uint32_t* from) { return reinterpret_cast<__m512bh>(_mm512_loadu_si512(from)); }
  static Pairs broadcast(std::uint32_t pair) {
    return reinterpret_cast<__m512bh>(_mm512_set1_epi32(static_cast<int>(pair)));
  }
  static __m512 multiply_add(Pairs a, Pairs b, __m512 sum) { return _mm512_dpbf16_ps(sum, a, b); }

  // 16 sums, 2 columns and a pair of the left matrix fill 19 of 32 registers.
  static void block(const PairProduct& p, std::int64_t row, std::int64_t column) {
    pair_tile<Avx512, Avx512Dots, kRows, 2>(p, row, column);
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
