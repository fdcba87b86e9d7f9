// Attention of one head in bfloat16, written once for a class `Lanes` (lanes_template.h) and a class `Dots`, which
// multiplies; after head_shared_template.h.
//
// The instructions for bfloat16 multiply pairs: sum += a[2 k] b[2 k] + a[2 k + 1] b[2 k + 1]. So the right matrix of a
// product is stored with two rows in one, element (i, j) holding (2 i, j) and (2 i + 1, j); the left one has them
// beside each other as it is. Matrices with one row per key of which only a few queries are at hand are summed
// transposed, [head size][keys], so that the large factors are right ones, whose pairs are cheap to make.
//
// `Dots` provides kRows and kColumns, of both of which it computes a multiple (those rows of the left matrix are read,
// those of the result written), enter() and leave() around the products of a head, and block(product, row, column).

static constexpr std::int64_t kPairUnit = 32;  // columns, depth and head size are multiples of it

struct PairProduct {
  std::int64_t rows, columns, depth;
  const std::uint16_t* a;
  std::int64_t a_row;
  const std::uint32_t* b;
  std::int64_t b_row;
  float* c;
  std::int64_t c_row;
  bool accumulate;
};

using PairBits __attribute__((may_alias)) = std::uint32_t;
using FloatBits __attribute__((may_alias)) = float;

// A block of the product: kM rows and kN vectors of columns. `Step` provides Pairs, a vector of pairs, load, broadcast
// and multiply_add(a, b, sum) = sum + a b for each pair.
template <class Lanes, class Step, int kM, int kN>
static inline __attribute__((always_inline)) void pair_tile(const PairProduct& p, std::int64_t row,
                                                            std::int64_t column) {
  const std::uint16_t* a = p.a + row * p.a_row;
  float* c = p.c + row * p.c_row + column;
  typename Lanes::Vector sum[kM][kN];
#pragma GCC unroll 8
  for (int m = 0; m < kM; ++m) {
#pragma GCC unroll 2
    for (int n = 0; n < kN; ++n) {
      sum[m][n] = p.accumulate ? Lanes::load(c + m * p.c_row + n * Lanes::kFloats) : Lanes::zero();
    }
  }
  for (std::int64_t k = 0; k < p.depth / 2; ++k) {
    typename Step::Pairs right[kN];
#pragma GCC unroll 2
    for (int n = 0; n < kN; ++n) right[n] = Step::load(p.b + k * p.b_row + column + n * Lanes::kFloats);
#pragma GCC unroll 8
    for (int m = 0; m < kM; ++m) {
      const auto left = Step::broadcast(*reinterpret_cast<const PairBits*>(a + m * p.a_row + 2 * k));
#pragma GCC unroll 2
      for (int n = 0; n < kN; ++n) sum[m][n] = Step::multiply_add(left, right[n], sum[m][n]);
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < kM; ++m) {
#pragma GCC unroll 2
    for (int n = 0; n < kN; ++n) Lanes::store(c + m * p.c_row + n * Lanes::kFloats, sum[m][n]);
  }
}

template <class Dots>
static void multiply_pairs(const PairProduct& p) {
  for (std::int64_t column = 0; column < p.columns; column += Dots::kColumns) {
    for (std::int64_t row = 0; row < p.rows; row += Dots::kRows) Dots::block(p, row, column);
  }
}

using BitRows = RowsOf<const std::uint16_t>;

// The right matrix x^T: [columns / 2][padded] pairs of neighbours in a row of x; zeros beyond its rows.
static void pack_transposed(BitRows x, std::int64_t rows, std::int64_t columns, std::uint32_t* to,
                            std::int64_t padded) {
  std::int64_t r = 0;
  for (; r + 8 <= rows; r += 8) {
    for (std::int64_t c = 0; c < columns; c += 16) {
      __m256 row[8];
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) {
        row[i] =
            _mm256_castsi256_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(x.data + (r + i) * x.stride + c)));
      }
      store_transposed(row, reinterpret_cast<FloatBits*>(to + c / 2 * padded + r), padded);
    }
  }
  for (std::int64_t c = 0; c < columns / 2; ++c) {
    for (std::int64_t rest = r; rest < padded; ++rest) {
      to[c * padded + rest] = rest < rows ? *reinterpret_cast<const PairBits*>(x.data + rest * x.stride + 2 * c) : 0;
    }
  }
}

// The right matrix x: [padded / 2][columns] pairs of its rows; zeros beyond its rows.
static void pack_rows(BitRows x, std::int64_t rows, std::int64_t columns, std::uint32_t* to, std::int64_t padded) {
  for (std::int64_t r = 0; r < padded; r += 2) {
    std::uint32_t* out = to + r / 2 * columns;
    for (std::int64_t c = 0; c < columns; c += 16) {
      const auto row = [&](std::int64_t at) {
        if (at >= rows) return _mm256_setzero_si256();
        return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x.data + at * x.stride + c));
      };
      const __m256i even = row(r);
      const __m256i odd = row(r + 1);
      const __m256i low = _mm256_unpacklo_epi16(even, odd);
      const __m256i high = _mm256_unpackhi_epi16(even, odd);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + c), _mm256_permute2x128_si256(low, high, 0x20));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + c + 8), _mm256_permute2x128_si256(low, high, 0x31));
    }
  }
}

// The left matrix x^T of at most kPairUnit rows: [columns][kPairUnit], zeros beyond its rows; `space`: kPairUnit / 2
// times `columns`.
static void transpose_rows(BitRows x, std::int64_t rows, std::int64_t columns, std::uint32_t* space,
                           std::uint16_t* to) {
  pack_rows(x, rows, columns, space, kPairUnit);
  for (std::int64_t r = 0; r < kPairUnit / 2; r += 8) {
    for (std::int64_t c = 0; c < columns; c += 8) {
      __m256 row[8];
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) {
        row[i] = _mm256_loadu_ps(reinterpret_cast<const FloatBits*>(space + (r + i) * columns + c));
      }
      store_transposed(row, reinterpret_cast<FloatBits*>(to + c * kPairUnit + 2 * r), kPairUnit / 2);
    }
  }
}

// The rows themselves if they are as many as a product reads, else copies with zeros below.
template <class Dots>
static BitRows readable_rows(BitRows x, std::int64_t rows, std::int64_t columns, std::uint16_t* space) {
  const std::int64_t all = round_up(rows, Dots::kRows);
  if (all == rows) return x;
  for (std::int64_t r = 0; r < all; ++r) {
    for (std::int64_t c = 0; c < columns; ++c) space[r * columns + c] = r < rows ? x.data[r * x.stride + c] : 0;
  }
  return {space, columns};
}

// to = factor `row`, which is scaled in place.
template <class Lanes>
static void store_scaled(float* row, float factor, std::uint16_t* to, std::int64_t count) {
  scale_row<Lanes>(row, factor, count);
  row_kernels().narrow(row, to, count);
}

// scale q k^T + holes of a block.
template <class Lanes, class Dots>
static void pair_scores(const HeadShape& in, const QueryBlock& block, BitRows q, const std::uint32_t* keys_t,
                        std::int64_t padded, float* scores) {
  multiply_pairs<Dots>({round_up(block.count, Dots::kRows), block.padded, in.head_size, q.data, q.stride, keys_t,
                        padded, scores, padded, false});
  for (std::int64_t i = 0; i < block.count; ++i) scale_row<Lanes>(scores + i * padded, in.scale, block.padded);
  hide_scores(in, block, scores, padded);
}

// Pieces of the scratch memory, each on a cache line of its own.
class Pieces {
 public:
  explicit Pieces(float* scratch)
      : next_(reinterpret_cast<float*>((reinterpret_cast<std::uintptr_t>(scratch) + 63) / 64 * 64)) {}
  float* floats(std::int64_t count) {
    float* piece = next_;
    next_ += round_up(count, 16);
    return piece;
  }
  std::uint32_t* pairs(std::int64_t count) { return reinterpret_cast<std::uint32_t*>(floats(count)); }
  std::uint16_t* numbers(std::int64_t count) { return reinterpret_cast<std::uint16_t*>(floats(count / 2)); }

 private:
  float* next_;
};

template <class Lanes, class Dots>
static void bfloat16_head_forward(const HeadInputsOf<Bfloat16>& in, RowsOf<Bfloat16> out, float* moments,
                                  float* scratch) {
  constexpr std::int64_t kQueries = kHeadQueries<Bfloat16>;
  const std::int64_t size = in.head_size;
  const std::int64_t padded = round_up(in.keys, kPairUnit);
  Pieces pieces(scratch);
  std::uint32_t* keys_t = pieces.pairs(size / 2 * padded);
  std::uint32_t* values = pieces.pairs(padded / 2 * size);
  float* scores = pieces.floats(kQueries * padded);
  std::uint16_t* p = pieces.numbers(kQueries * padded);
  std::uint16_t* q_space = pieces.numbers(kQueries * size);
  float* sums = pieces.floats(kQueries * size);
  pack_transposed(in.k, in.keys, size, keys_t, padded);
  pack_rows(in.v, in.keys, size, values, padded);
  Dots::enter();
  for (std::int64_t first = 0; first < in.queries; first += kQueries) {
    const QueryBlock block = query_block(in, first, kQueries, kPairUnit);
    const BitRows q = readable_rows<Dots>({in.q.data + first * in.q.stride, in.q.stride}, block.count, size, q_space);
    pair_scores<Lanes, Dots>(in, block, q, keys_t, padded, scores);
    for (std::int64_t i = 0; i < block.count; ++i) {
      exponential_row<Lanes>(scores + i * padded, block.padded, moments + 2 * (first + i));
      drop_row(in, block, i, scores + i * padded);
      row_kernels().narrow(scores + i * padded, p + i * padded, block.padded);
    }
    multiply_pairs<Dots>(
        {round_up(block.count, Dots::kRows), size, block.padded, p, padded, values, size, sums, size, false});
    for (std::int64_t i = 0; i < block.count; ++i) {
      store_scaled<Lanes>(sums + i * size, moments[2 * (first + i) + 1], out.data + (first + i) * out.stride, size);
    }
  }
  Dots::leave();
}

// `space`: 2 x count.
template <class Lanes>
static float dot_rows(const std::uint16_t* a, const std::uint16_t* b, std::int64_t count, float* space) {
  row_kernels().widen(a, space, count);
  row_kernels().widen(b, space + count, count);
  auto sum = Lanes::zero();
  for (std::int64_t j = 0; j < count; j += Lanes::kFloats) {
    sum = Lanes::multiply_add(Lanes::load(space + j), Lanes::load(space + count + j), sum);
  }
  return combine_lanes<Lanes>(sum, [](float x, float y) { return x + y; });
}

// to[key] = scale sums[.][key]; `space`: 8 x size.
template <class Lanes>
static void store_sums(const float* sums, std::int64_t padded, std::int64_t keys, std::int64_t size, float scale,
                       float* space, RowsOf<Bfloat16> to) {
  const __m256 one = _mm256_set1_ps(1);
  for (std::int64_t r = 0; r < keys; r += 8) {
    for (std::int64_t c = 0; c < size; c += 8) transpose_square(sums + c * padded + r, padded, one, space + c, size);
    for (std::int64_t i = 0; i < 8 && r + i < keys; ++i) {
      store_scaled<Lanes>(space + i * size, scale, to.data + (r + i) * to.stride, size);
    }
  }
}

template <class Lanes, class Dots>
static void bfloat16_head_backward(const HeadInputsOf<Bfloat16>& in, const HeadGradientsOf<Bfloat16>& grad,
                                   float* scratch) {
  constexpr std::int64_t kQueries = kHeadQueries<Bfloat16>;
  static_assert(kQueries == kPairUnit);
  const std::int64_t size = in.head_size;
  const std::int64_t padded = round_up(in.keys, kPairUnit);
  Pieces pieces(scratch);
  std::uint32_t* keys_t = pieces.pairs(size / 2 * padded);
  std::uint32_t* values_t = pieces.pairs(size / 2 * padded);
  std::uint32_t* keys = pieces.pairs(padded / 2 * size);
  float* key_sums = pieces.floats(size * padded);
  float* value_sums = pieces.floats(size * padded);
  float* p = pieces.floats(kQueries * padded);
  float* g = pieces.floats(kQueries * padded);
  std::uint16_t* p_rows = pieces.numbers(kQueries * padded);
  std::uint16_t* g_rows = pieces.numbers(kQueries * padded);
  std::uint32_t* p_pairs = pieces.pairs(kQueries / 2 * padded);
  std::uint32_t* g_pairs = pieces.pairs(kQueries / 2 * padded);
  std::uint16_t* q_space = pieces.numbers(kQueries * size);
  std::uint16_t* dout_space = pieces.numbers(kQueries * size);
  std::uint16_t* q_t = pieces.numbers(size * kQueries);
  std::uint16_t* dout_t = pieces.numbers(size * kQueries);
  std::uint32_t* space = pieces.pairs(kQueries / 2 * size);
  float* sums = pieces.floats(kQueries * size);
  pack_transposed(in.k, in.keys, size, keys_t, padded);
  pack_transposed(in.v, in.keys, size, values_t, padded);
  pack_rows(in.k, in.keys, size, keys, padded);
  for (float* each : {key_sums, value_sums}) {
    for (std::int64_t i = 0; i < size * padded; i += Lanes::kFloats) Lanes::store(each + i, Lanes::zero());
  }
  Dots::enter();
  for (std::int64_t first = 0; first < in.queries; first += kQueries) {
    const QueryBlock block = query_block(in, first, kQueries, kPairUnit);
    const std::int64_t rows = round_up(block.count, Dots::kRows);
    const BitRows q_block{in.q.data + first * in.q.stride, in.q.stride};
    const BitRows dout_block{grad.dout.data + first * grad.dout.stride, grad.dout.stride};
    const BitRows q = readable_rows<Dots>(q_block, block.count, size, q_space);
    const BitRows dout = readable_rows<Dots>(dout_block, block.count, size, dout_space);
    pair_scores<Lanes, Dots>(in, block, q, keys_t, padded, p);
    multiply_pairs<Dots>({rows, block.padded, size, dout.data, dout.stride, values_t, padded, g, padded, false});
    for (std::int64_t i = 0; i < block.count; ++i) {
      float* p_row = p + i * padded;
      float* g_row = g + i * padded;
      softmax_again<Lanes>(p_row, block.padded, grad.moments + 2 * (first + i));
      const float delta = dot_rows<Lanes>(dout_block.data + i * dout_block.stride,
                                          grad.out.data + (first + i) * grad.out.stride, size, sums);
      score_gradient_row<Lanes>(in, block, i, delta, p_row, g_row);
      row_kernels().narrow(p_row, p_rows + i * padded, block.padded);
      row_kernels().narrow(g_row, g_rows + i * padded, block.padded);
    }
    multiply_pairs<Dots>({rows, size, block.padded, g_rows, padded, keys, size, sums, size, false});
    for (std::int64_t i = 0; i < block.count; ++i) {
      store_scaled<Lanes>(sums + i * size, in.scale, grad.dq.data + (first + i) * grad.dq.stride, size);
    }
    pack_rows({p_rows, padded}, block.count, block.padded, p_pairs, kQueries);
    pack_rows({g_rows, padded}, block.count, block.padded, g_pairs, kQueries);
    transpose_rows(q_block, block.count, size, space, q_t);
    transpose_rows(dout_block, block.count, size, space, dout_t);
    multiply_pairs<Dots>(
        {size, block.padded, kQueries, dout_t, kQueries, p_pairs, block.padded, value_sums, padded, true});
    multiply_pairs<Dots>({size, block.padded, kQueries, q_t, kQueries, g_pairs, block.padded, key_sums, padded, true});
  }
  Dots::leave();
  store_sums<Lanes>(key_sums, padded, in.keys, size, in.scale, sums, grad.dk);
  store_sums<Lanes>(value_sums, padded, in.keys, size, 1, sums, grad.dv);
}
