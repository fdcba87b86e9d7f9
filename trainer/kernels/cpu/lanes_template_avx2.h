// AVX2 and FMA as the class `Lanes` of the templates; lanes_template.h says what it provides. Included after the pragma
// that allows the instructions.
struct Avx2 {
  using Vector = __m256;
  static constexpr int kFloats = 8;
  static constexpr int kDepth = 384;   // of a packed panel in the first-level cache: 24 KiB
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
  static Vector divide(Vector a, Vector b) { return _mm256_div_ps(a, b); }
  static Vector magnitude(Vector x) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0F), x); }
  static Vector where_negative(Vector x, Vector yes, Vector no) { return _mm256_blendv_ps(no, yes, x); }
  static Vector zero_below(Vector x, Vector limit, Vector value) {
    return _mm256_and_ps(value, _mm256_cmp_ps(x, limit, _CMP_NLT_UQ));
  }
};
