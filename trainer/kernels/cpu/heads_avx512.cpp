// Attention for AVX-512; see rows_avx2.cpp about the pragma and heads_avx2.cpp about the exponential.
#include "trainer/kernels/cpu/heads.h"

#if defined(__x86_64__)
#include <immintrin.h>

#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,fma")

namespace dtrain::cpu {
namespace {

struct Avx512 {
  using Vector = __m512;
  static constexpr int kFloats = 16;
  static constexpr int kTileRows = 12;  // 24 sums, 2 columns and a broadcast of 32 registers

  static Vector zero() { return _mm512_setzero_ps(); }
  static Vector load(const float* from) { return _mm512_loadu_ps(from); }
  static void store(float* to, Vector value) { _mm512_storeu_ps(to, value); }
  static Vector broadcast(float value) { return _mm512_set1_ps(value); }
  static Vector multiply_add(Vector a, Vector b, Vector c) { return _mm512_fmadd_ps(a, b, c); }
  static Vector multiply(Vector a, Vector b) { return _mm512_mul_ps(a, b); }
  static Vector add(Vector a, Vector b) { return _mm512_add_ps(a, b); }
  static Vector subtract(Vector a, Vector b) { return _mm512_sub_ps(a, b); }
  static Vector maximum(Vector a, Vector b) { return _mm512_max_ps(a, b); }

  static Vector exponential(Vector x) {
    const Vector n = _mm512_roundscale_ps(_mm512_mul_ps(x, broadcast(1.44269504088896341F)),
                                          _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    Vector r = _mm512_fnmadd_ps(n, broadcast(0.693359375F), x);
    r = _mm512_fnmadd_ps(n, broadcast(-2.12194440e-4F), r);
    Vector y = broadcast(1.0F / 5040);
    y = _mm512_fmadd_ps(y, r, broadcast(1.0F / 720));
    y = _mm512_fmadd_ps(y, r, broadcast(1.0F / 120));
    y = _mm512_fmadd_ps(y, r, broadcast(1.0F / 24));
    y = _mm512_fmadd_ps(y, r, broadcast(1.0F / 6));
    y = _mm512_fmadd_ps(y, r, broadcast(0.5F));
    y = _mm512_fmadd_ps(y, r, broadcast(1.0F));
    y = _mm512_fmadd_ps(y, r, broadcast(1.0F));
    const __m512i power = _mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127)), 23);
    const __mmask16 visible = _mm512_cmp_ps_mask(x, broadcast(-87.0F), _CMP_NLT_UQ);
    return _mm512_maskz_mul_ps(visible, y, _mm512_castsi512_ps(power));
  }
};

#include "trainer/kernels/cpu/head_template.h"

}  // namespace

const HeadKernels* avx512_head_kernels() {
  static constexpr HeadKernels kKernels{"AVX-512", head_forward<Avx512>, head_backward<Avx512>};
  return &kKernels;
}

}  // namespace dtrain::cpu

#else

namespace dtrain::cpu {
const HeadKernels* avx512_head_kernels() { return nullptr; }
}  // namespace dtrain::cpu

#endif
