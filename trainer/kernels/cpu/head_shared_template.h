// What the attention kernels in float32 and in bfloat16 share, for a class `Lanes` that wraps one instruction set; see
// lanes_template.h.

static std::int64_t round_up(std::int64_t count, std::int64_t unit) { return (count + unit - 1) / unit * unit; }

// What both passes know about a block of queries.
struct QueryBlock {
  std::int64_t first, count;  // queries
  std::int64_t seen;          // keys that the last of them sees
  std::int64_t padded;        // the same, rounded up to `unit`
};

static QueryBlock query_block(const HeadShape& in, std::int64_t first, std::int64_t most, std::int64_t unit) {
  QueryBlock block{first, in.queries - first < most ? in.queries - first : most, in.keys, 0};
  if (in.causal) block.seen = in.keys - in.queries + first + block.count;
  block.padded = round_up(block.seen, unit);
  return block;
}

static std::int64_t keys_seen(const HeadShape& in, std::int64_t query) {
  return in.causal ? in.keys - in.queries + query + 1 : in.keys;
}

// The scores of a block in place, of which those that query i does not see become -infinity.
static void hide_scores(const HeadShape& in, const QueryBlock& block, float* scores, std::int64_t stride) {
  for (std::int64_t i = 0; i < block.count; ++i) {
    float* row = scores + i * stride;
    const std::int64_t seen = keys_seen(in, block.first + i);
    if (in.holes != nullptr) {
      for (std::int64_t j = 0; j < seen; ++j) row[j] += in.holes[j];
    }
    for (std::int64_t j = seen; j < block.padded; ++j) row[j] = -__builtin_inff();
  }
}

template <class Lanes>
static void scale_row(float* row, float factor, std::int64_t count) {
  const auto scale = Lanes::broadcast(factor);
  for (std::int64_t j = 0; j < count; j += Lanes::kFloats) {
    Lanes::store(row + j, Lanes::multiply(Lanes::load(row + j), scale));
  }
}

// Exponentials in place of scores; the division by their sum is left to the rows of the result, which are shorter.
template <class Lanes>
static void exponential_row(float* row, std::int64_t padded, float* moments) {
  auto largest = Lanes::load(row);
  for (std::int64_t j = Lanes::kFloats; j < padded; j += Lanes::kFloats) {
    largest = Lanes::maximum(largest, Lanes::load(row + j));
  }
  const float maximum = combine_lanes<Lanes>(largest, [](float a, float b) { return a > b ? a : b; });
  const auto subtracted = Lanes::broadcast(maximum);
  auto sum = Lanes::zero();
  for (std::int64_t j = 0; j < padded; j += Lanes::kFloats) {
    const auto value = exponential<Lanes>(Lanes::subtract(Lanes::load(row + j), subtracted));
    Lanes::store(row + j, value);
    sum = Lanes::add(sum, value);
  }
  moments[0] = maximum;
  moments[1] = 1.0F / combine_lanes<Lanes>(sum, [](float a, float b) { return a + b; });
}

// The probabilities from the moments.
template <class Lanes>
static void softmax_again(float* row, std::int64_t padded, const float* moments) {
  const auto subtracted = Lanes::broadcast(moments[0]);
  const auto factor = Lanes::broadcast(moments[1]);
  for (std::int64_t j = 0; j < padded; j += Lanes::kFloats) {
    const auto value = exponential<Lanes>(Lanes::subtract(Lanes::load(row + j), subtracted));
    Lanes::store(row + j, Lanes::multiply(value, factor));
  }
}

// In place, for row `i` of a block: p, the probabilities, and g, the gradients of the dropped ones, become dropped(p)
// and the gradients of the scores; `delta` is the sum over the keys of g * dropped(p).
template <class Lanes>
static void score_gradient_row(const HeadShape& in, const QueryBlock& block, std::int64_t i, float delta, float* p,
                               float* g) {
  if (in.drops) {
    const std::int64_t seen = keys_seen(in, block.first + i);
    RowDraw draw = in.drop;
    draw.row = in.first_row + static_cast<std::uint32_t>(block.first + i);
    row_kernels().attention_grad(draw, p, g, delta, in.first_key, seen);
    for (std::int64_t j = seen; j < block.padded; ++j) g[j] = 0;
  } else {
    const auto minus = Lanes::broadcast(delta);
    for (std::int64_t j = 0; j < block.padded; j += Lanes::kFloats) {
      Lanes::store(g + j, Lanes::multiply(Lanes::load(p + j), Lanes::subtract(Lanes::load(g + j), minus)));
    }
  }
}

// The dropout of row `i` of a block of probabilities.
static void drop_row(const HeadShape& in, const QueryBlock& block, std::int64_t i, float* row) {
  if (!in.drops) return;
  RowDraw draw = in.drop;
  draw.row = in.first_row + static_cast<std::uint32_t>(block.first + i);
  row_kernels().attention(draw, row, in.first_key, keys_seen(in, block.first + i));
}
