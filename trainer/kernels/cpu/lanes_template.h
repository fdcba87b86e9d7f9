// What the kernels of all instruction sets are written with: a class `Lanes` that wraps one of them, exponentials,
// tiles of products. Included by source files of one instruction set each (all of x86), inside their own namespace,
// after lanes_template_avx2.h or lanes_template_avx512.h; it must include nothing and define no inline function that
// another file could share.
//
// `Lanes` provides: Vector of kFloats floats, kTileRows (rows of a tile of products), kDepth, and zero, load, store,
// broadcast, multiply, divide, subtract, add, maximum, magnitude, multiply_add(a, b, c) = a b + c, subtract_product(a,
// b, c) = c - a b, nearest(x) (whole numbers), power_of_two(n) for whole n from -126 on, where_negative(x, yes, no) (by
// the sign bit), and zero_below(x, limit, value) = x < limit ? 0 : value, which is `value` where x is NaN.

// exp(x) for x <= 0, to about one unit in the last place; 0 below -87. x = n ln 2 + r with |r| <= ln 2 / 2 (Cody and
// Waite's two parts of ln 2), exp(r) by the Taylor polynomial of degree 7. NaN stays NaN.
template <class Lanes>
static inline __attribute__((always_inline)) typename Lanes::Vector exponential(typename Lanes::Vector x) {
  const auto n = Lanes::nearest(Lanes::multiply(x, Lanes::broadcast(1.44269504088896341F)));
  auto r = Lanes::subtract_product(n, Lanes::broadcast(0.693359375F), x);
  r = Lanes::subtract_product(n, Lanes::broadcast(-2.12194440e-4F), r);
  constexpr float kTaylor[] = {1.0F / 720, 1.0F / 120, 1.0F / 24, 1.0F / 6, 0.5F, 1.0F, 1.0F};
  auto y = Lanes::broadcast(1.0F / 5040);
#pragma GCC unroll 7
  for (const float coefficient : kTaylor) y = Lanes::multiply_add(y, r, Lanes::broadcast(coefficient));
  return Lanes::zero_below(x, Lanes::broadcast(-87.0F), Lanes::multiply(y, Lanes::power_of_two(n)));
}

// A tile of C = A B + initial (null: 0): kM rows, kN vectors of columns. A's element (m, k) is at a[m * a_row + k *
// a_column].
template <class Lanes, int kM, int kN>
static inline __attribute__((always_inline)) void tile(std::int64_t depth, const float* a, std::int64_t a_row,
                                                       std::int64_t a_column, const float* b, std::int64_t b_row,
                                                       const float* initial, std::int64_t initial_row, float* c,
                                                       std::int64_t c_row) {
  typename Lanes::Vector sum[kM][kN];
#pragma GCC unroll 16
  for (int m = 0; m < kM; ++m) {
#pragma GCC unroll 2
    for (int n = 0; n < kN; ++n)
      sum[m][n] = initial != nullptr ? Lanes::load(initial + m * initial_row + n * Lanes::kFloats) : Lanes::zero();
  }
  for (std::int64_t k = 0; k < depth; ++k) {
    typename Lanes::Vector right[kN];
#pragma GCC unroll 2
    for (int n = 0; n < kN; ++n) right[n] = Lanes::load(b + k * b_row + n * Lanes::kFloats);
#pragma GCC unroll 16
    for (int m = 0; m < kM; ++m) {
      const auto left = Lanes::broadcast(a[m * a_row + k * a_column]);
#pragma GCC unroll 2
      for (int n = 0; n < kN; ++n) sum[m][n] = Lanes::multiply_add(left, right[n], sum[m][n]);
    }
  }
#pragma GCC unroll 16
  for (int m = 0; m < kM; ++m) {
#pragma GCC unroll 2
    for (int n = 0; n < kN; ++n) Lanes::store(c + m * c_row + n * Lanes::kFloats, sum[m][n]);
  }
}

// Eight rows of eight 32-bit numbers become eight columns; their bits are only moved.
static inline __attribute__((always_inline)) void store_transposed(const __m256 (&row)[8], float* to,
                                                                   std::int64_t to_row) {
  __m256 pair[8];
  __m256 quad[8];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    pair[2 * i] = _mm256_unpacklo_ps(row[2 * i], row[2 * i + 1]);
    pair[2 * i + 1] = _mm256_unpackhi_ps(row[2 * i], row[2 * i + 1]);
  }
#pragma GCC unroll 2
  for (int half = 0; half < 2; ++half) {
    const __m256* in = pair + 4 * half;
    quad[4 * half] = _mm256_shuffle_ps(in[0], in[2], 0x44);
    quad[4 * half + 1] = _mm256_shuffle_ps(in[0], in[2], 0xEE);
    quad[4 * half + 2] = _mm256_shuffle_ps(in[1], in[3], 0x44);
    quad[4 * half + 3] = _mm256_shuffle_ps(in[1], in[3], 0xEE);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    _mm256_storeu_ps(to + i * to_row, _mm256_permute2f128_ps(quad[i], quad[4 + i], 0x20));
    _mm256_storeu_ps(to + (4 + i) * to_row, _mm256_permute2f128_ps(quad[i], quad[4 + i], 0x31));
  }
}

// Eight rows of eight floats become eight columns, times `scale`.
static inline __attribute__((always_inline)) void transpose_square(const float* from, std::int64_t from_row,
                                                                   __m256 scale, float* to, std::int64_t to_row) {
  __m256 row[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) row[i] = _mm256_mul_ps(_mm256_loadu_ps(from + i * from_row), scale);
  store_transposed(row, to, to_row);
}

template <class Lanes, class Combine>
static float combine_lanes(typename Lanes::Vector vector, Combine combine) {
  float lanes[Lanes::kFloats];
  Lanes::store(lanes, vector);
  float result = lanes[0];
  for (int i = 1; i < Lanes::kFloats; ++i) result = combine(result, lanes[i]);
  return result;
}
