// AVX-512 as the class `Lanes` of the templates; lanes_template.h says what it provides. Included after the pragma that
// allows the instructions.
struct Avx512 {
  using Vector = __m512;
  static constexpr int kFloats = 16;
  static constexpr int kDepth = 192;    // of a packed panel in the first-level cache: 24 KiB
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
  static Vector subtract_product(Vector a, Vector b, Vector c) { return _mm512_fnmadd_ps(a, b, c); }
  static Vector nearest(Vector x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  static Vector power_of_two(Vector n) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127)), 23));
  }
  static Vector divide(Vector a, Vector b) { return _mm512_div_ps(a, b); }
  static Vector magnitude(Vector x) { return _mm512_andnot_ps(_mm512_set1_ps(-0.0F), x); }
  static Vector where_negative(Vector x, Vector yes, Vector no) {
    return _mm512_mask_mov_ps(no, _mm512_movepi32_mask(_mm512_castps_si512(x)), yes);
  }
  static Vector zero_below(Vector x, Vector limit, Vector value) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, limit, _CMP_NLT_UQ), value);
  }
};
