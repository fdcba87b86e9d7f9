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

  // exp(x) for x <= 0, to about one unit in the last place; 0 below -87. x = n ln 2 + r with |r| <= ln 2 / 2 (Cody and
  // Waite's two parts of ln 2), exp(r) by the Taylor polynomial of degree 7. NaN stays NaN.
  static Vector exponential(Vector x) {
    const Vector n = _mm256_round_ps(_mm256_mul_ps(x, broadcast(1.44269504088896341F)),
                                     _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    Vector r = _mm256_fnmadd_ps(n, broadcast(0.693359375F), x);
    r = _mm256_fnmadd_ps(n, broadcast(-2.12194440e-4F), r);
    Vector y = broadcast(1.0F / 5040);
    y = _mm256_fmadd_ps(y, r, broadcast(1.0F / 720));
    y = _mm256_fmadd_ps(y, r, broadcast(1.0F / 120));
    y = _mm256_fmadd_ps(y, r, broadcast(1.0F / 24));
    y = _mm256_fmadd_ps(y, r, broadcast(1.0F / 6));
    y = _mm256_fmadd_ps(y, r, broadcast(0.5F));
    y = _mm256_fmadd_ps(y, r, broadcast(1.0F));
    y = _mm256_fmadd_ps(y, r, broadcast(1.0F));
    const __m256i power = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    const Vector visible = _mm256_cmp_ps(x, broadcast(-87.0F), _CMP_NLT_UQ);
    return _mm256_and_ps(_mm256_mul_ps(y, _mm256_castsi256_ps(power)), visible);
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
