// Milliseconds of the pieces of one training step on this machine, forward and backward, at a model's own shapes: where
// a step's time goes and how far each piece is from the products' ceiling.
//
// usage: kernel_bench [TOKENS] [HIDDEN] [HEADS] [INNER]   (default: MiniLM-L6 with 16 reviews of 202 tokens)
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <vector>

#include <ATen/ops/layer_norm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <fmt/format.h>

#include "core/clock.h"
#include "trainer/kernels/attention.h"
#include "trainer/kernels/cpu/block_cache.h"
#include "trainer/kernels/dense.h"
#include "trainer/kernels/dropout.h"

namespace {

using namespace dtrain;

constexpr int kRounds = 7;

double median_ms(const std::function<void()>& body) {
  std::vector<double> seconds;
  for (int i = 0; i < kRounds + 2; ++i) {
    const Stopwatch watch;
    body();
    if (i >= 2) seconds.push_back(watch.seconds());
  }
  std::sort(seconds.begin(), seconds.end());
  return seconds[seconds.size() / 2] * 1e3;
}

// `flops`: of forward; backward does `back` times as much.
void measure(const char* name, double flops, double back, const std::vector<at::Tensor>& inputs,
             const std::function<at::Tensor()>& forward) {
  at::Tensor result = forward();
  const at::Tensor incoming = at::ones(result.sizes());
  const double forward_ms = median_ms([&] { result = forward(); });
  double both_ms = median_ms([&] {
    result = forward();
    for (const at::Tensor& input : inputs) input.mutable_grad() = at::Tensor();
    result.backward(incoming);
  });
  const double backward_ms = both_ms - forward_ms;
  fmt::print("{:34} forward {:8.2f} ms  backward {:8.2f} ms", name, forward_ms, backward_ms);
  if (flops > 0) {
    fmt::print("  {:6.0f} and {:6.0f} GFLOP/s", flops / forward_ms / 1e6, back * flops / backward_ms / 1e6);
  }
  fmt::print("\n");
}

}  // namespace

int main(int argc, char** argv) {
  const auto argument = [&](int i, std::int64_t otherwise) { return argc > i ? std::atoll(argv[i]) : otherwise; };
  const std::int64_t tokens = argument(1, 16 * 202);
  const std::int64_t hidden = argument(2, 384);
  const std::int64_t heads = argument(3, 12);
  const std::int64_t inner = argument(4, 1536);
  constexpr std::int64_t kBatch = 16;
  cpu::use_block_cache();

  const auto leaf = [](at::IntArrayRef sizes) { return at::randn(sizes).requires_grad_(); };
  const at::Tensor x = leaf({tokens, hidden});
  const at::Tensor wide = leaf({tokens, inner});
  const auto product = [&](std::int64_t in, std::int64_t out) {
    const at::Tensor& input = in == hidden ? x : wide;
    const at::Tensor weight = leaf({out, in});
    const at::Tensor bias = leaf({out});
    measure(fmt::format("linear {} x {} -> {}", tokens, in, out).c_str(), 2.0 * static_cast<double>(tokens * in * out),
            2, {input, weight, bias}, [=] {
              return dense(input, {{weight, bias}}, WeightOrder::kOutIn);
            });
  };
  product(hidden, hidden);
  product(hidden, 3 * hidden);
  product(hidden, inner);
  product(inner, hidden);

  const std::int64_t length = tokens / kBatch;
  const at::Tensor mask = at::ones({kBatch, length}, at::kLong);
  const TokenLayoutPtr layout = make_token_layout(mask, kBatch, length, at::kCPU, false, true);
  DropoutKeys keys{RandomKey{1, 1}, at::ones({kBatch}, at::kLong), layout};
  const at::Tensor q = leaf({layout->rows, hidden});
  const at::Tensor k = leaf({layout->rows, hidden});
  const at::Tensor v = leaf({layout->rows, hidden});
  AttentionOptions options;
  options.num_heads = heads;
  options.scale = 0.1;
  const double flops = 4.0 * static_cast<double>(kBatch * length * length * hidden);
  for (const double p : {0.0, 0.1}) {
    options.dropout = p;
    measure(fmt::format("attention, dropout {}", p).c_str(), flops, 2.5, {q, k, v},
            [&] { return attention(q, k, v, layout, mask, options, keys); });
  }
  const at::Tensor rows = leaf({layout->rows, hidden});
  const at::Tensor weight = leaf({hidden});
  const at::Tensor bias = leaf({hidden});
  measure("dropout + residual", 0, 0, {rows}, [&] { return counter_dropout_add(rows, rows, 0.1, keys, 1); });
  measure("layer norm", 0, 0, {rows, weight, bias}, [&] { return at::layer_norm(rows, {hidden}, weight, bias, 1e-5); });
  for (const bool tanh : {false, true}) {
    const DensePart part{leaf({inner, hidden}), leaf({inner})};
    measure(fmt::format("linear {} x {} -> {}, GELU ({})", tokens, hidden, inner, tanh ? "tanh" : "erf").c_str(),
            2.0 * static_cast<double>(tokens * hidden * inner), 2, {x, part.weight, part.bias},
            [&] { return dense_gelu(x, part, WeightOrder::kOutIn, tanh); });
  }
  return 0;
}
