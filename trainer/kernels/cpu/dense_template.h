// The kernels of dense.h, written once for a class `Lanes` that wraps one instruction set; see lanes_template.h.

template <class Lanes>
static constexpr std::int64_t kPanel = 2 * Lanes::kFloats;

template <class Lanes>
static void pack_panel(const Matrix& b, std::int64_t depth, float* to) {
  if (b.column == 1) {
    for (std::int64_t k = 0; k < depth; ++k) {
      for (int n = 0; n < 2; ++n) {
        Lanes::store(to + k * kPanel<Lanes> + n * Lanes::kFloats, Lanes::load(b.data + k * b.row + n * Lanes::kFloats));
      }
    }
  } else if (b.row == 1 && depth % 8 == 0) {
    const __m256 one = _mm256_set1_ps(1);
    for (std::int64_t k = 0; k < depth; k += 8) {
      for (std::int64_t j = 0; j < kPanel<Lanes>; j += 8) {
        transpose_square(b.data + k + j * b.column, b.column, one, to + k * kPanel<Lanes> + j, kPanel<Lanes>);
      }
    }
  } else {
    for (std::int64_t k = 0; k < depth; ++k) {
      for (std::int64_t j = 0; j < kPanel<Lanes>; ++j) to[k * kPanel<Lanes> + j] = b.data[k * b.row + j * b.column];
    }
  }
}

// A panel's part [depth][panel] times all rows.
struct PanelProduct {
  const float* a;
  std::int64_t a_row;
  std::int64_t rows, depth;
  const float* b;
  const float* initial;
  std::int64_t initial_row;
  float* c;
  std::int64_t c_row;
};

template <class Lanes, int kM>
static inline __attribute__((always_inline)) void panel_tile(const PanelProduct& p, std::int64_t row) {
  tile<Lanes, kM, 2>(p.depth, p.a + row * p.a_row, p.a_row, 1, p.b, kPanel<Lanes>,
                     p.initial == nullptr ? nullptr : p.initial + row * p.initial_row, p.initial_row,
                     p.c + row * p.c_row, p.c_row);
}

// The rows [first, rows), at most kM of them.
template <class Lanes, int kM>
static void last_rows(const PanelProduct& p, std::int64_t first) {
  if (p.rows - first == kM) {
    panel_tile<Lanes, kM>(p, first);
  } else if constexpr (kM > 1) {
    last_rows<Lanes, kM - 1>(p, first);
  }
}

template <class Lanes>
static void multiply_packed(ConstRows a, std::int64_t rows, std::int64_t depth, const float* packed,
                            std::int64_t columns, const float* bias, Rows c) {
  for (std::int64_t k = 0; k < depth; k += Lanes::kDepth) {
    const std::int64_t part = depth - k < Lanes::kDepth ? depth - k : Lanes::kDepth;
    for (std::int64_t column = 0; column < columns; column += kPanel<Lanes>) {
      PanelProduct p{a.data + k, a.stride,        rows,    part, packed + column * depth + k * kPanel<Lanes>, nullptr,
                     0,          c.data + column, c.stride};
      if (k > 0) {
        p.initial = p.c;
        p.initial_row = c.stride;
      } else if (bias != nullptr) {
        p.initial = bias + column;
      }
      std::int64_t row = 0;
      for (; row + Lanes::kTileRows <= rows; row += Lanes::kTileRows) panel_tile<Lanes, Lanes::kTileRows>(p, row);
      if (row < rows) last_rows<Lanes, Lanes::kTileRows - 1>(p, row);
    }
  }
}

// What gelu and its derivative share for one vector: gelu(x) = x `gate`, gelu'(x) = gate + x `slope`.
template <class Lanes>
struct Gate {
  typename Lanes::Vector gate;
  typename Lanes::Vector slope;
};

// gate = Phi(x), slope = phi(x). With z = |x| / sqrt 2: Phi(-|x|) = polynomial(t) exp(-z^2) / 2, t = 1 / (1 + p z).
template <class Lanes>
static inline __attribute__((always_inline)) Gate<Lanes> erf_gate(typename Lanes::Vector x) {
  const auto z = Lanes::multiply(Lanes::magnitude(x), Lanes::broadcast(0.707106781186547524F));
  const auto one = Lanes::broadcast(1);
  const auto t = Lanes::divide(one, Lanes::multiply_add(z, Lanes::broadcast(0.3275911F), one));
  constexpr float kCoefficients[] = {-1.453152027F, 1.421413741F, -0.284496736F, 0.254829592F};
  auto polynomial = Lanes::broadcast(1.061405429F);
#pragma GCC unroll 4
  for (const float coefficient : kCoefficients) {
    polynomial = Lanes::multiply_add(polynomial, t, Lanes::broadcast(coefficient));
  }
  const auto bell = exponential<Lanes>(Lanes::subtract_product(z, z, Lanes::zero()));
  const auto tail = Lanes::multiply(Lanes::multiply(polynomial, t), Lanes::multiply(bell, Lanes::broadcast(0.5F)));
  return {Lanes::where_negative(x, tail, Lanes::subtract(one, tail)),
          Lanes::multiply(bell, Lanes::broadcast(0.398942280401432678F))};
}

// 0.5 (1 + tanh(u)) is the logistic function of 2 u, u = sqrt(2 / pi) (x + 0.044715 x^3).
template <class Lanes>
static inline __attribute__((always_inline)) Gate<Lanes> tanh_gate(typename Lanes::Vector x) {
  constexpr float kTwice = 2 * 0.797884560802865356F;
  constexpr float kCubic = 0.044715F;
  const auto one = Lanes::broadcast(1);
  const auto square = Lanes::multiply(x, x);
  const auto inner = Lanes::multiply_add(square, Lanes::broadcast(kTwice * kCubic), Lanes::broadcast(kTwice));
  const auto twice_u = Lanes::multiply(x, inner);
  const auto e = exponential<Lanes>(Lanes::subtract(Lanes::zero(), Lanes::magnitude(twice_u)));
  const auto reciprocal = Lanes::divide(one, Lanes::add(one, e));
  const auto below = Lanes::multiply(e, reciprocal);  // the logistic function of -|2 u|
  const auto derivative = Lanes::multiply(below, reciprocal);
  const auto inner_slope = Lanes::multiply_add(square, Lanes::broadcast(3 * kTwice * kCubic), Lanes::broadcast(kTwice));
  return {Lanes::where_negative(twice_u, below, reciprocal), Lanes::multiply(derivative, inner_slope)};
}

template <class Lanes>
static inline __attribute__((always_inline)) Gate<Lanes> gate_of(Gelu form, typename Lanes::Vector x) {
  return form == Gelu::kErf ? erf_gate<Lanes>(x) : tanh_gate<Lanes>(x);
}

// Whole vectors, then what is left through a vector on the stack.
template <class Lanes>
static void gelu_row(Gelu form, const float* x, float* y, std::int64_t count) {
  std::int64_t i = 0;
  for (; i + Lanes::kFloats <= count; i += Lanes::kFloats) {
    const auto value = Lanes::load(x + i);
    Lanes::store(y + i, Lanes::multiply(value, gate_of<Lanes>(form, value).gate));
  }
  if (i < count) {
    float rest[2][Lanes::kFloats] = {};
    for (std::int64_t j = i; j < count; ++j) rest[0][j - i] = x[j];
    gelu_row<Lanes>(form, rest[0], rest[1], Lanes::kFloats);
    for (std::int64_t j = i; j < count; ++j) y[j] = rest[1][j - i];
  }
}

template <class Lanes>
static void gelu_backward_row(Gelu form, const float* x, const float* dy, float* dx, float* sums, std::int64_t count) {
  std::int64_t i = 0;
  for (; i + Lanes::kFloats <= count; i += Lanes::kFloats) {
    const auto value = Lanes::load(x + i);
    const Gate<Lanes> parts = gate_of<Lanes>(form, value);
    const auto result = Lanes::multiply(Lanes::load(dy + i), Lanes::multiply_add(value, parts.slope, parts.gate));
    Lanes::store(dx + i, result);
    Lanes::store(sums + i, Lanes::add(Lanes::load(sums + i), result));
  }
  if (i < count) {
    float rest[4][Lanes::kFloats] = {};
    for (std::int64_t j = i; j < count; ++j) {
      rest[0][j - i] = x[j];
      rest[1][j - i] = dy[j];
      rest[3][j - i] = sums[j];
    }
    gelu_backward_row<Lanes>(form, rest[0], rest[1], rest[2], rest[3], Lanes::kFloats);
    for (std::int64_t j = i; j < count; ++j) {
      dx[j] = rest[2][j - i];
      sums[j] = rest[3][j - i];
    }
  }
}

template <class Lanes>
static void add_row(float* sums, const float* x, std::int64_t count) {
  std::int64_t i = 0;
  for (; i + Lanes::kFloats <= count; i += Lanes::kFloats) {
    Lanes::store(sums + i, Lanes::add(Lanes::load(sums + i), Lanes::load(x + i)));
  }
  for (; i < count; ++i) sums[i] += x[i];
}

template <class Lanes>
static constexpr DenseKernels dense_table(const char* name) {
  return {name,
          kPanel<Lanes>,
          Lanes::kTileRows,
          pack_panel<Lanes>,
          multiply_packed<Lanes>,
          gelu_row<Lanes>,
          gelu_backward_row<Lanes>,
          add_row<Lanes>};
}
