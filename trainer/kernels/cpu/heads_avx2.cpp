// Attention for AVX2 and FMA; see rows_avx2.cpp about the pragma.
#include "trainer/kernels/cpu/heads.h"

#if defined(__x86_64__)
#include <immintrin.h>

#pragma GCC target("avx2,fma")

namespace dtrain::cpu {
namespace {

struct Avx2 {
  using Vector = __m256;
  static constexpr int kFloats = 8;
  static constexpr int kTileRows = 6;  // 12 sums, 2 columns and a broadcast fill the 16 registers

  static Vector zero() { return _mm256_setzero_ps(); }
  static Vector load(const float* from) { return _mm256_loadu_ps(from); }
  static void store(float* to, Vector value) { _mm256_storeu_ps(to, value); }
  static Vector broadcast(float value) { return _mm256_set1_ps(value); }
  static Vector multiply_add(Vector a, Vector b, Vector c) { return _mm256_fmadd_ps(a, b, c); }
  static Vector multiply(Vector a, Vector b) { return _mm256_mul_ps(a, b); }
  static Vector add(Vector a, Vector b) { return _mm256_add_ps(a, b); }
  static Vector subtract(Vector a, Vector b) { return _mm256_sub_ps(a, b); }
  static Vector maximum(Vector a, Vector b) { return _mm256_max_ps(a, b); }
  static Vector subtract_product(Vector a, Vector b, Vector c) { return _mm256_fnmadd_ps(a, b, c); }
  static Vector nearest(Vector x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  static Vector power_of_two(Vector n) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23));
  }
  static Vector zero_below(Vector x, Vector limit, Vector value) {
    return _mm256_and_ps(value, _mm256_cmp_ps(x, limit, _CMP_NLT_UQ));
  }
};

#include "trainer/kernels/cpu/head_template.h"

}  // namespace

const HeadKernels* avx2_head_kernels() {
  static constexpr HeadKernels kKernels{"AVX2", head_forward<Avx2>, head_backward<Avx2>};
  return &kKernels;
}

}  // namespace dtrain::cpu

#else

namespace dtrain::cpu {
const HeadKernels* avx2_head_kernels() { return nullptr; }
}  // namespace dtrain::cpu

#endif
