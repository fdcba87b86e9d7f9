// The row kernels, written once for a class `Lanes` that wraps one instruction set. Included by one source file per
// instruction set, inside that file's own namespace; it must include nothing and define no inline function that another
// file could share. `Lanes` provides:
//   Vector               blocks in 64-bit lanes; kBlocks of them; kUnroll: vectors worked on together
//   set(u32), block_counters(u32 first), multiply(Vector, Vector), high_halves(Vector), xor3(a, b, c), store_bits(...)
//   kFloats              floats in one Floats; load/store for the three types, select(bits, threshold, Floats), ...

// One Philox round over vectors: see core/random.h. Only the low halves of the lanes count; the high halves hold
// rubbish.
template <class Lanes, int kCount>
static inline __attribute__((always_inline)) void draw_blocks(const typename Lanes::Vector (&keys)[20],
                                                              const RowDraw& draw, std::uint32_t first_block,
                                                              std::uint16_t* bits) {
  using Vector = typename Lanes::Vector;
  const Vector multiplier0 = Lanes::set(0xD2511F53);
  const Vector multiplier1 = Lanes::set(0xCD9E8D57);
  Vector c0[kCount];
  Vector c1[kCount];
  Vector c2[kCount];
  Vector c3[kCount];
  for (int i = 0; i < kCount; ++i) {
    c0[i] = Lanes::block_counters(first_block + static_cast<std::uint32_t>(i * Lanes::kBlocks));
    c1[i] = Lanes::set(draw.row);
    c2[i] = Lanes::set(draw.slot);
    c3[i] = Lanes::set(draw.site);
  }
#pragma GCC unroll 10
  for (int round = 0; round < 10; ++round) {
#pragma GCC unroll 4
    for (int i = 0; i < kCount; ++i) {
      const Vector product0 = Lanes::multiply(c0[i], multiplier0);
      const Vector product1 = Lanes::multiply(c2[i], multiplier1);
      c0[i] = Lanes::xor3(Lanes::high_halves(product1), c1[i], keys[2 * round]);
      c1[i] = product1;
      c2[i] = Lanes::xor3(Lanes::high_halves(product0), c3[i], keys[2 * round + 1]);
      c3[i] = product0;
    }
  }
  for (int i = 0; i < kCount; ++i) {
    Lanes::store_bits(bits + i * 8 * Lanes::kBlocks, c0[i], c1[i], c2[i], c3[i]);
  }
}

// The draws of one row in pieces of kPiece columns.
template <class Lanes>
struct RowBits {
  static constexpr std::int64_t kPiece = 1024;

  explicit RowBits(const RowDraw& row_draw) : draw(row_draw) {
    for (std::uint32_t round = 0; round < 10; ++round) {
      keys[2 * round] = Lanes::set(draw.key[0] + round * 0x9E3779B9);
      keys[2 * round + 1] = Lanes::set(draw.key[1] + round * 0xBB67AE85);
    }
  }

  // Draws for the columns [column, column + count), count <= kPiece; returns where the first one lies.
  const std::uint16_t* fill(std::int64_t column, std::int64_t count) {
    const std::int64_t skipped = column % 8;
    std::uint32_t block = static_cast<std::uint32_t>(column / 8);
    std::int64_t left = (skipped + count + 7) / 8;
    std::uint16_t* out = bits;
    while (left > 0) {
      if (left > Lanes::kBlocks) {
        draw_blocks<Lanes, Lanes::kUnroll>(keys, draw, block, out);
        block += Lanes::kUnroll * Lanes::kBlocks;
        left -= Lanes::kUnroll * Lanes::kBlocks;
        out += Lanes::kUnroll * Lanes::kBlocks * 8;
      } else {
        draw_blocks<Lanes, 1>(keys, draw, block, out);
        left -= Lanes::kBlocks;
      }
    }
    return bits + skipped;
  }

  const RowDraw& draw;
  typename Lanes::Vector keys[20];
  alignas(64) std::uint16_t bits[kPiece + 8 + Lanes::kUnroll * Lanes::kBlocks * 8 + Lanes::kFloats];
};

template <Type kType>
struct StoredOf {
  using type = std::uint16_t;
};
template <>
struct StoredOf<Type::kFloat> {
  using type = float;
};
template <Type kType>
using Stored = typename StoredOf<kType>::type;

template <class Lanes, Type kIn, Type kOut, bool kAdd>
static inline __attribute__((always_inline)) void dropout_step(const std::uint16_t* bits, std::uint32_t threshold,
                                                               typename Lanes::Floats scale, const Stored<kIn>* in,
                                                               const Stored<kOut>* residual, Stored<kOut>* out) {
  auto value = Lanes::multiply(Lanes::kept(bits, threshold, Lanes::template load<kIn>(in)), scale);
  if constexpr (kAdd) value = Lanes::add(Lanes::template load<kOut>(residual), value);
  Lanes::template store<kOut>(out, value);
}

template <class Lanes, Type kIn, Type kOut, bool kAdd>
static void dropout_columns(const RowDraw& draw, const Stored<kIn>* in, const Stored<kOut>* residual, Stored<kOut>* out,
                            std::int64_t count) {
  RowBits<Lanes> row(draw);
  const auto scale = Lanes::broadcast(draw.scale);
  for (std::int64_t start = 0; start < count; start += RowBits<Lanes>::kPiece) {
    const std::int64_t piece = count - start < RowBits<Lanes>::kPiece ? count - start : RowBits<Lanes>::kPiece;
    const std::uint16_t* bits = row.fill(start, piece);
    std::int64_t i = 0;
    for (; i + Lanes::kFloats <= piece; i += Lanes::kFloats) {
      dropout_step<Lanes, kIn, kOut, kAdd>(bits + i, draw.threshold, scale, in + start + i,
                                           kAdd ? residual + start + i : nullptr, out + start + i);
    }
    if (i < piece) {
      Stored<kIn> last_in[Lanes::kFloats] = {};
      Stored<kOut> last_residual[Lanes::kFloats] = {};
      Stored<kOut> last_out[Lanes::kFloats];
      const auto rest = static_cast<std::size_t>(piece - i);
      __builtin_memcpy(last_in, in + start + i, rest * sizeof(Stored<kIn>));
      if (kAdd) __builtin_memcpy(last_residual, residual + start + i, rest * sizeof(Stored<kOut>));
      dropout_step<Lanes, kIn, kOut, kAdd>(bits + i, draw.threshold, scale, last_in, last_residual, last_out);
      __builtin_memcpy(out + start + i, last_out, rest * sizeof(Stored<kOut>));
    }
  }
}

template <class Lanes, Type kIn, Type kOut>
static void dropout_row(const RowDraw& draw, const void* input, const void* residual, void* output,
                        std::int64_t count) {
  const auto* in = static_cast<const Stored<kIn>*>(input);
  auto* out = static_cast<Stored<kOut>*>(output);
  if (residual != nullptr) {
    dropout_columns<Lanes, kIn, kOut, true>(draw, in, static_cast<const Stored<kOut>*>(residual), out, count);
  } else {
    dropout_columns<Lanes, kIn, kOut, false>(draw, in, nullptr, out, count);
  }
}

template <class Lanes>
static void attention_row(const RowDraw& draw, float* probability, std::int64_t first, std::int64_t count) {
  RowBits<Lanes> row(draw);
  const auto scale = Lanes::broadcast(draw.scale);
  for (std::int64_t start = 0; start < count; start += RowBits<Lanes>::kPiece) {
    const std::int64_t piece = count - start < RowBits<Lanes>::kPiece ? count - start : RowBits<Lanes>::kPiece;
    const std::uint16_t* bits = row.fill(first + start, piece);
    float* p = probability + start;
    std::int64_t i = 0;
    for (; i + Lanes::kFloats <= piece; i += Lanes::kFloats) {
      dropout_step<Lanes, Type::kFloat, Type::kFloat, false>(bits + i, draw.threshold, scale, p + i, nullptr, p + i);
    }
    for (; i < piece; ++i) p[i] = bits[i] >= draw.threshold ? p[i] * draw.scale : 0.0F;
  }
}

template <class Lanes>
static void attention_grad_row(const RowDraw& draw, float* probability, float* gradient, float delta,
                               std::int64_t first, std::int64_t count) {
  RowBits<Lanes> row(draw);
  const auto scale = Lanes::broadcast(draw.scale);
  const auto minus_delta = Lanes::broadcast(-delta);
  for (std::int64_t start = 0; start < count; start += RowBits<Lanes>::kPiece) {
    const std::int64_t piece = count - start < RowBits<Lanes>::kPiece ? count - start : RowBits<Lanes>::kPiece;
    const std::uint16_t* bits = row.fill(first + start, piece);
    float* p = probability + start;
    float* g = gradient + start;
    std::int64_t i = 0;
    for (; i + Lanes::kFloats <= piece; i += Lanes::kFloats) {
      const auto prob = Lanes::template load<Type::kFloat>(p + i);
      const auto grad = Lanes::template load<Type::kFloat>(g + i);
      Lanes::template store<Type::kFloat>(p + i, Lanes::multiply(Lanes::kept(bits + i, draw.threshold, prob), scale));
      const auto kept = Lanes::multiply(Lanes::kept(bits + i, draw.threshold, grad), scale);
      Lanes::template store<Type::kFloat>(g + i, Lanes::multiply(prob, Lanes::add(kept, minus_delta)));
    }
    for (; i < piece; ++i) {
      const bool keep = bits[i] >= draw.threshold;
      const float prob = p[i];
      p[i] = keep ? prob * draw.scale : 0.0F;
      g[i] = prob * ((keep ? g[i] * draw.scale : 0.0F) - delta);
    }
  }
}

template <class Lanes, Type kIn, Type kOut>
static void convert_row(const Stored<kIn>* in, Stored<kOut>* out, std::int64_t count) {
  std::int64_t i = 0;
  for (; i + Lanes::kFloats <= count; i += Lanes::kFloats) {
    Lanes::template store<kOut>(out + i, Lanes::template load<kIn>(in + i));
  }
  if (i < count) {
    Stored<kIn> last_in[Lanes::kFloats] = {};
    Stored<kOut> last_out[Lanes::kFloats];
    const auto rest = static_cast<std::size_t>(count - i);
    __builtin_memcpy(last_in, in + i, rest * sizeof(Stored<kIn>));
    Lanes::template store<kOut>(last_out, Lanes::template load<kIn>(last_in));
    __builtin_memcpy(out + i, last_out, rest * sizeof(Stored<kOut>));
  }
}

template <class Lanes>
static void widen_row(const void* from, float* to, std::int64_t count) {
  convert_row<Lanes, Type::kBfloat16, Type::kFloat>(static_cast<const std::uint16_t*>(from), to, count);
}

template <class Lanes>
static void narrow_row(const float* from, void* to, std::int64_t count) {
  convert_row<Lanes, Type::kFloat, Type::kBfloat16>(from, static_cast<std::uint16_t*>(to), count);
}

template <class Lanes>
static constexpr RowKernels make_row_kernels(const char* name) {
  constexpr Type kF = Type::kFloat;
  constexpr Type kB = Type::kBfloat16;
  constexpr Type kH = Type::kHalf;
  return {name,
          {{dropout_row<Lanes, kF, kF>, dropout_row<Lanes, kF, kB>, dropout_row<Lanes, kF, kH>},
           {dropout_row<Lanes, kB, kF>, dropout_row<Lanes, kB, kB>, dropout_row<Lanes, kB, kH>},
           {dropout_row<Lanes, kH, kF>, dropout_row<Lanes, kH, kB>, dropout_row<Lanes, kH, kH>}},
          attention_row<Lanes>,
          attention_grad_row<Lanes>,
          widen_row<Lanes>,
          narrow_row<Lanes>};
}
