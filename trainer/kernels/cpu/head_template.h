// The kernels of heads.h, written once for a class `Lanes` that wraps one instruction set; after
// head_shared_template.h; see lanes_template.h.

struct Product {
  std::int64_t rows, columns, depth;  // columns: a multiple of the vector
  const float* a;
  std::int64_t a_row, a_column;
  const float* b;
  std::int64_t b_row;
  float* c;
  std::int64_t c_row;
  bool accumulate;

  [[nodiscard]] const float* initial(std::int64_t row, std::int64_t column) const {
    return accumulate ? c + row * c_row + column : nullptr;
  }
};

// The rows [first, rows), at most kM of them, for kN vectors of columns.
template <class Lanes, int kM, int kN>
static void rest_of_rows(const Product& p, std::int64_t first, std::int64_t column) {
  if (p.rows - first == kM) {
    tile<Lanes, kM, kN>(p.depth, p.a + first * p.a_row, p.a_row, p.a_column, p.b + column, p.b_row,
                        p.initial(first, column), p.c_row, p.c + first * p.c_row + column, p.c_row);
  } else if constexpr (kM > 1) {
    rest_of_rows<Lanes, kM - 1, kN>(p, first, column);
  }
}

template <class Lanes, int kN>
static void panel(const Product& p, std::int64_t column) {
  std::int64_t row = 0;
  for (; row + Lanes::kTileRows <= p.rows; row += Lanes::kTileRows) {
    tile<Lanes, Lanes::kTileRows, kN>(p.depth, p.a + row * p.a_row, p.a_row, p.a_column, p.b + column, p.b_row,
                                      p.initial(row, column), p.c_row, p.c + row * p.c_row + column, p.c_row);
  }
  if (row < p.rows) rest_of_rows<Lanes, Lanes::kTileRows - 1, kN>(p, row, column);
}

template <class Lanes>
static void multiply_matrices(const Product& p) {
  constexpr std::int64_t kWide = 2 * Lanes::kFloats;
  std::int64_t column = 0;
  for (; column + kWide <= p.columns; column += kWide) panel<Lanes, 2>(p, column);
  if (column < p.columns) panel<Lanes, 1>(p, column);
}

// [columns, rows of `from`] with `padded` places a row, times `scale`; the padding is 0. `columns`: a multiple of 8.
static void transpose(ConstRows from, std::int64_t rows, std::int64_t columns, float scale, float* to,
                      std::int64_t padded) {
  const __m256 factor = _mm256_set1_ps(scale);
  std::int64_t r = 0;
  for (; r + 8 <= rows; r += 8) {
    for (std::int64_t c = 0; c < columns; c += 8) {
      transpose_square(from.data + r * from.stride + c, from.stride, factor, to + c * padded + r, padded);
    }
  }
  for (std::int64_t c = 0; c < columns; ++c) {
    for (std::int64_t rest = r; rest < padded; ++rest) {
      to[c * padded + rest] = rest < rows ? from.data[rest * from.stride + c] * scale : 0;
    }
  }
}

static void copy_rows(ConstRows from, std::int64_t rows, std::int64_t columns, float scale, Rows to) {
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t c = 0; c < columns; ++c) to.data[r * to.stride + c] = from.data[r * from.stride + c] * scale;
  }
}

template <class Lanes>
static void block_scores(const HeadInputs& in, const QueryBlock& block, const float* keys_t, std::int64_t keys_padded,
                         float* scores) {
  multiply_matrices<Lanes>({block.count, block.padded, in.head_size, in.q.data + block.first * in.q.stride, in.q.stride,
                            1, keys_t, keys_padded, scores, keys_padded, false});
  hide_scores(in, block, scores, keys_padded);
}

template <class Lanes>
static void head_forward(const HeadInputs& in, Rows out, float* moments, float* scratch) {
  const std::int64_t padded = round_up(in.keys, 2 * Lanes::kFloats);
  float* keys_t = scratch;
  float* values = keys_t + in.head_size * padded;
  float* scores = values + in.keys * in.head_size;
  transpose(in.k, in.keys, in.head_size, in.scale, keys_t, padded);
  copy_rows(in.v, in.keys, in.head_size, 1, {values, in.head_size});
  for (std::int64_t first = 0; first < in.queries; first += kHeadQueries<float>) {
    const QueryBlock block = query_block(in, first, kHeadQueries<float>, 2 * Lanes::kFloats);
    block_scores<Lanes>(in, block, keys_t, padded, scores);
    for (std::int64_t i = 0; i < block.count; ++i) {
      exponential_row<Lanes>(scores + i * padded, block.padded, moments + 2 * (first + i));
      drop_row(in, block, i, scores + i * padded);
    }
    multiply_matrices<Lanes>({block.count, in.head_size, block.seen, scores, padded, 1, values, in.head_size,
                              out.data + first * out.stride, out.stride, false});
    for (std::int64_t i = 0; i < block.count; ++i) {
      scale_row<Lanes>(out.data + (first + i) * out.stride, moments[2 * (first + i) + 1], in.head_size);
    }
  }
}

template <class Lanes>
static void head_backward(const HeadInputs& in, const HeadGradients& grad, float* scratch) {
  const std::int64_t padded = round_up(in.keys, 2 * Lanes::kFloats);
  const std::int64_t area = in.keys * in.head_size;
  float* keys_t = scratch;
  float* values_t = keys_t + in.head_size * padded;
  float* keys = values_t + in.head_size * padded;
  float* key_sums = keys + area;
  float* value_sums = key_sums + area;
  float* p = value_sums + area;
  float* g = p + kHeadQueries<float> * padded;
  transpose(in.k, in.keys, in.head_size, in.scale, keys_t, padded);
  transpose(in.v, in.keys, in.head_size, 1, values_t, padded);
  copy_rows(in.k, in.keys, in.head_size, in.scale, {keys, in.head_size});
  for (std::int64_t i = 0; i < 2 * area; ++i) key_sums[i] = 0;
  for (std::int64_t first = 0; first < in.queries; first += kHeadQueries<float>) {
    const QueryBlock block = query_block(in, first, kHeadQueries<float>, 2 * Lanes::kFloats);
    const float* dout = grad.dout.data + first * grad.dout.stride;
    const float* out = grad.out.data + first * grad.out.stride;
    block_scores<Lanes>(in, block, keys_t, padded, p);
    multiply_matrices<Lanes>(
        {block.count, block.padded, in.head_size, dout, grad.dout.stride, 1, values_t, padded, g, padded, false});
    for (std::int64_t i = 0; i < block.count; ++i) {
      float* p_row = p + i * padded;
      float* g_row = g + i * padded;
      softmax_again<Lanes>(p_row, block.padded, grad.moments + 2 * (first + i));
      // The sum over the keys of g * dropped(p) is the product of the rows of the result and of its gradient.
      float delta = 0;
      for (std::int64_t c = 0; c < in.head_size; ++c)
        delta += dout[i * grad.dout.stride + c] * out[i * grad.out.stride + c];
      score_gradient_row<Lanes>(in, block, i, delta, p_row, g_row);
    }
    multiply_matrices<Lanes>({block.count, in.head_size, block.seen, g, padded, 1, keys, in.head_size,
                              grad.dq.data + first * grad.dq.stride, grad.dq.stride, false});
    multiply_matrices<Lanes>(
        {block.seen, in.head_size, block.count, p, 1, padded, dout, grad.dout.stride, value_sums, in.head_size, true});
    multiply_matrices<Lanes>({block.seen, in.head_size, block.count, g, 1, padded, in.q.data + first * in.q.stride,
                              in.q.stride, key_sums, in.head_size, true});
  }
  copy_rows({key_sums, in.head_size}, in.keys, in.head_size, in.scale, grad.dk);
  copy_rows({value_sums, in.head_size}, in.keys, in.head_size, 1, grad.dv);
}
