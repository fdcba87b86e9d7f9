// The attention of the CPU: LibTorch's operations as reference, packed against padded rows, every instruction set.
#include "trainer/kernels/attention.h"

#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include <ATen/ops/allclose.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>

#include "trainer/kernels/cpu/heads.h"

namespace dtrain {
namespace {

DropoutKeys make_keys(const std::vector<std::int64_t>& slots) {
  DropoutKeys keys{RandomKey{7, 3}, at::empty({static_cast<std::int64_t>(slots.size())}, at::kLong)};
  std::copy(slots.begin(), slots.end(), keys.slots.mutable_data_ptr<std::int64_t>());
  return keys;
}

// [batch, length, hidden], every position a row.
at::Tensor padded_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& mask,
                            const AttentionOptions& options, const DropoutKeys& keys) {
  const TokenLayoutPtr layout =
      make_token_layout(mask, q.size(0), q.size(1), at::kCPU, options.causal, /*packed=*/false);
  const auto rows = [&](const at::Tensor& x) { return x.reshape({layout->rows, q.size(2)}); };
  return attention(rows(q), rows(k), rows(v), layout, mask, options, keys).view(q.sizes());
}

// The CPU's own attention against LibTorch's operations, with the same mask of dropout; real tokens only.
TEST(Attention, HeadwiseEqualsComposed) {
  const std::int64_t batch = 3;
  const std::int64_t length = 21;
  at::Tensor mask = at::ones({batch, length}, at::kLong);
  mask.select(0, 1).narrow(0, 13, 8).zero_();  // right padding
  mask.select(0, 2).narrow(0, 0, 5).zero_();   // left padding ...
  mask.select(0, 2).narrow(0, 9, 2).zero_();   // ... and a hole
  for (const bool causal : {false, true}) {
    for (const double p : {0.0, 0.3}) {
      for (const bool masked : {false, true}) {
        AttentionOptions options;
        options.num_heads = 4;
        options.scale = 0.35;
        options.causal = causal;
        options.dropout = p;
        options.site = 6;
        const DropoutKeys keys = p > 0 ? make_keys({8, 2, 5}) : DropoutKeys{};
        const at::Tensor joined = at::randn({batch, length, 96});
        const at::Tensor incoming = at::randn({batch, length, 32}).mul(mask.unsqueeze(2));
        at::Tensor out[2];
        at::Tensor gradient[2];
        for (int which = 0; which < 2; ++which) {
          at::Tensor x = joined.clone().requires_grad_();
          const auto parts = x.chunk(3, 2);
          const at::Tensor padding = masked ? mask : at::Tensor();
          const at::Tensor y = which == 0 ? padded_attention(parts[0], parts[1], parts[2], padding, options, keys)
                                          : composed_attention(parts[0], parts[1], parts[2], padding, options, keys);
          y.backward(incoming);
          out[which] = masked ? y.detach().mul(mask.unsqueeze(2)) : y.detach();
          gradient[which] = x.grad();
        }
        EXPECT_TRUE(at::allclose(out[0], out[1], 1e-5, 1e-6)) << causal << p << masked;
        EXPECT_TRUE(at::allclose(gradient[0], gradient[1], 1e-4, 1e-5)) << causal << p << masked;
      }
    }
  }
}

// bfloat16 against float32 of the same numbers: each probability is rounded, an eighth of a percent, and so are the
// sums. With heads of 16 columns there is no kernel in bfloat16, and that in float32 takes its place.
TEST(Attention, Bfloat16IsNearFloat32) {
  const at::Tensor mask = at::ones({3, 21}, at::kLong);
  mask.select(0, 1).narrow(0, 13, 8).zero_();
  AttentionOptions options;
  options.scale = 0.35;
  options.dropout = 0.3;
  options.site = 6;
  const DropoutKeys keys = make_keys({8, 2, 5});
  for (const auto& [heads, causal] : {std::pair(2, false), std::pair(2, true), std::pair(4, false)}) {
    options.num_heads = heads;
    options.causal = causal;
    const TokenLayoutPtr layout = make_token_layout(mask, 3, 21, at::kCPU, causal, /*packed=*/true);
    const std::vector<std::int64_t> last = {20, 12, 20};
    const at::Tensor joined = at::randn({layout->rows, 3 * 64}).to(at::kBFloat16);
    for (const bool reads : {false, true}) {
      const TokenLayoutPtr queries = reads ? one_row_each(*layout, last) : nullptr;
      const at::Tensor incoming = at::randn({reads ? 3 : layout->rows, 64}).to(at::kBFloat16);
      at::Tensor out[2];
      at::Tensor gradient[2];
      for (int which = 0; which < 2; ++which) {
        const at::Tensor x = joined.to(which == 0 ? at::kBFloat16 : at::kFloat).clone().requires_grad_();
        const auto parts = x.chunk(3, 1);
        const at::Tensor q = reads ? parts[0].index_select(0, rows_of(*layout, last)) : parts[0];
        const at::Tensor y = attention(q, parts[1], parts[2], layout, {}, options, keys, queries);
        y.backward(incoming.to(y.scalar_type()));
        out[which] = y.detach();
        gradient[which] = x.grad().to(at::kFloat);
      }
      const bool kernels = heads == 2 && cpu::bfloat16_head_kernels() != nullptr;
      EXPECT_EQ(out[0].scalar_type(), kernels ? at::kBFloat16 : at::kFloat);
      const auto wrong = [](const at::Tensor& got, const at::Tensor& expected) {
        return got.to(at::kFloat).sub(expected).abs().max().div(expected.abs().max()).item<float>();
      };
      EXPECT_LT(wrong(out[0], out[1]), 0.01) << heads << causal << reads;
      EXPECT_LT(wrong(gradient[0], gradient[1]), 0.01) << heads << causal << reads;
      EXPECT_GT(gradient[1].abs().max().item<float>(), 1);
    }
  }
}

TEST(Attention, AnExampleWithoutTokensLooksAtItsFirstPosition) {
  const at::Tensor x = at::randn({2, 4, 8});
  at::Tensor mask = at::ones({2, 4}, at::kLong);
  mask.select(0, 1).zero_();
  AttentionOptions options;
  options.num_heads = 2;
  const at::Tensor y = padded_attention(x, x, x, mask, options, {});
  EXPECT_TRUE(at::equal(y.select(0, 1).select(0, 0), x.select(0, 1).select(0, 0)));
  EXPECT_EQ(y.select(0, 1).narrow(0, 1, 3).abs().sum().item<float>(), 0);
  EXPECT_TRUE(y.isfinite().all().item<bool>());
}

// Packed rows, and single queries, give the bits of the padded computation: outputs, gradients and draws.
TEST(Attention, PackedEqualsPadded) {
  const std::int64_t batch = 3;
  const std::int64_t length = 21;
  at::Tensor mask = at::ones({batch, length}, at::kLong);
  mask.select(0, 1).narrow(0, 13, 8).zero_();
  mask.select(0, 2).narrow(0, 0, 5).zero_();
  mask.select(0, 2).narrow(0, 9, 2).zero_();
  const DropoutKeys keys = make_keys({8, 2, 5});
  for (const bool causal : {false, true}) {
    AttentionOptions options;
    options.num_heads = 4;
    options.scale = 0.35;
    options.causal = causal;
    options.dropout = 0.3;
    options.site = 6;
    const TokenLayoutPtr padded = make_token_layout(mask, batch, length, at::kCPU, causal, false);
    const TokenLayoutPtr packed = make_token_layout(mask, batch, length, at::kCPU, causal, true);
    ASSERT_EQ(packed->rows, causal ? 21 + 13 + 16 : 21 + 13 + 21);
    // Where the packed rows are among the padded ones.
    const at::Tensor rows = token_values(*packed, at::arange(batch * length, at::kLong).view({batch, length}));
    const at::Tensor all = at::randn({batch * length, 96});
    const at::Tensor incoming = at::randn({batch * length, 32}).mul(mask.view({-1, 1}));
    const std::vector<std::int64_t> last = {20, 12, 20};
    const TokenLayoutPtr read = one_row_each(*packed, last);
    const at::Tensor read_rows = rows_of(*packed, last);

    const auto run = [&](const at::Tensor& joined, const TokenLayoutPtr& layout, const at::Tensor& gradient) {
      at::Tensor x = joined.clone().requires_grad_();
      const auto parts = x.chunk(3, 1);
      const at::Tensor y = attention(parts[0], parts[1], parts[2], layout, {}, options, keys);
      y.backward(gradient);
      return std::pair(y.detach(), x.grad());
    };
    const auto whole = run(all, padded, incoming);
    const auto dense = run(all.index_select(0, rows), packed, incoming.index_select(0, rows));
    EXPECT_TRUE(at::equal(whole.first.index_select(0, rows), dense.first)) << causal;
    EXPECT_TRUE(at::equal(whole.second.index_select(0, rows), dense.second)) << causal;

    at::Tensor x = all.index_select(0, rows).requires_grad_();
    const auto parts = x.chunk(3, 1);
    const at::Tensor y =
        attention(parts[0].index_select(0, read_rows), parts[1], parts[2], packed, {}, options, keys, read);
    const at::Tensor upstream = at::randn({batch, 32});
    y.backward(upstream);
    EXPECT_TRUE(at::allclose(y, dense.first.index_select(0, read_rows), 1e-5, 1e-6)) << causal;
    const auto expected =
        run(all.index_select(0, rows), packed, at::zeros({packed->rows, 32}).index_copy(0, read_rows, upstream));
    EXPECT_TRUE(at::allclose(x.grad(), expected.second, 1e-4, 1e-6)) << causal;

    const at::Tensor ones = at::ones({batch, length, 40});
    DropoutKeys of_rows = keys;
    of_rows.layout = packed;
    EXPECT_TRUE(at::equal(counter_dropout(ones, 0.3, keys, 2).view({-1, 40}).index_select(0, rows),
                          counter_dropout(at::ones({packed->rows, 40}), 0.3, of_rows, 2)));
  }
}

// Half of the distance from 1 to the next number.
template <class Number>
constexpr double kUnit = std::is_same_v<Number, float> ? 5.97e-8 : 3.91e-3;
template <class Number>
constexpr at::ScalarType kType = std::is_same_v<Number, float> ? at::kFloat : at::kBFloat16;

// One head, its inputs and what the kernels make of them.
template <class Number>
struct OneHead {
  at::Tensor q, k, v, dout;  // [queries or keys, head size], rows of a wider tensor
  at::Tensor holes;
  at::Tensor out, moments, dq, dk, dv;

  static cpu::RowsOf<Number> rows(const at::Tensor& x) {
    return {static_cast<Number*>(x.mutable_data_ptr()), x.stride(0)};
  }
  static cpu::RowsOf<const Number> const_rows(const at::Tensor& x) {
    return {static_cast<const Number*>(x.const_data_ptr()), x.stride(0)};
  }

  cpu::HeadInputsOf<Number> inputs(bool causal, double p) const {
    cpu::HeadInputsOf<Number> in;
    in.q = const_rows(q);
    in.k = const_rows(k);
    in.v = const_rows(v);
    in.queries = q.size(0);
    in.keys = k.size(0);
    in.head_size = q.size(1);
    in.scale = 0.3F;
    in.causal = causal;
    in.holes = holes.defined() ? holes.const_data_ptr<float>() : nullptr;
    in.drops = p > 0;
    const std::uint32_t threshold = dropout_threshold(p);
    in.drop = {{11, 12}, 0, 5, 6, threshold, 65536.0F / static_cast<float>(65536 - threshold)};
    in.first_row = 1 << 20;
    in.first_key = 3;
    return in;
  }

  void run(const cpu::HeadKernelsOf<Number>& kernels, bool causal, double p) {
    std::vector<float> scratch(static_cast<std::size_t>(cpu::head_scratch<Number>(k.size(0), k.size(1))));
    out = at::empty(q.sizes(), kType<Number>);
    moments = at::empty({q.size(0), 2});
    const auto nothing_left = [&] {
      std::fill(scratch.begin(), scratch.end(), std::numeric_limits<float>::quiet_NaN());
    };
    nothing_left();
    kernels.forward(inputs(causal, p), rows(out), moments.mutable_data_ptr<float>(), scratch.data());
    dq = at::empty(q.sizes(), kType<Number>);
    dk = at::empty(k.sizes(), kType<Number>);
    dv = at::empty(v.sizes(), kType<Number>);
    nothing_left();
    kernels.backward(inputs(causal, p),
                     {const_rows(out), const_rows(dout), moments.const_data_ptr<float>(), rows(dq), rows(dk), rows(dv)},
                     scratch.data());
  }
};

// Every kernel against the plain formula in double, for shapes on and beside the edges of tiles and vectors.
template <class Number>
void expect_the_plain_formula(const std::vector<const cpu::HeadKernelsOf<Number>*>& available,
                              const std::vector<std::int64_t>& head_sizes) {
  for (const std::int64_t size : head_sizes) {
    for (const auto& [queries, keys] : std::vector<std::pair<std::int64_t, std::int64_t>>{
             {1, 1}, {1, 40}, {7, 7}, {24, 24}, {25, 25}, {67, 67}, {5, 33}, {64, 96}}) {
      for (const bool causal : {false, true}) {
        for (const double p : {0.0, 0.25}) {
          OneHead<Number> head;
          const auto random = [](std::int64_t rows, std::int64_t columns) {
            return at::randn({rows, columns}).to(kType<Number>);
          };
          head.q = random(queries, 3 * size).narrow(1, size, size);
          head.k = random(keys, 3 * size).narrow(1, 0, size);
          head.v = random(keys, 2 * size).narrow(1, size, size);
          head.dout = random(queries, size);
          if (keys > 6) {
            head.holes = at::zeros({keys});
            head.holes.narrow(0, 2, 3).fill_(-std::numeric_limits<float>::infinity());
          }
          // The reference: autograd in double over the same mask of dropout.
          const auto leaf = [](const at::Tensor& x) { return x.to(at::kDouble).clone().requires_grad_(); };
          const at::Tensor q = leaf(head.q);
          const at::Tensor k = leaf(head.k);
          const at::Tensor v = leaf(head.v);
          at::Tensor scores = q.matmul(k.t()).mul(0.3F);
          if (head.holes.defined()) scores = scores.add(head.holes);
          if (causal) {
            const at::Tensor hidden = at::ones({queries, keys}, at::kBool).triu(keys - queries + 1);
            scores = scores.masked_fill(hidden, -std::numeric_limits<double>::infinity());
          }
          at::Tensor mask = at::ones({queries, keys}, at::kFloat);
          if (p > 0) {
            cpu::RowDraw draw = head.inputs(causal, p).drop;
            for (std::int64_t i = 0; i < queries; ++i) {
              draw.row = (1 << 20) + static_cast<std::uint32_t>(i);
              cpu::generic_row_kernels().attention(draw, mask.mutable_data_ptr<float>() + i * keys, 3, keys);
            }
          }
          const at::Tensor out = scores.softmax(1).mul(mask).matmul(v);
          out.backward(head.dout.to(at::kDouble));

          // A sum in float32 is wrong relative to its terms, not to what remains of them (the gradient of the scores is
          // a difference of two such sums), and a probability relative to the terms of its score. In bfloat16 so is
          // each term, but hardly its score.
          const at::Tensor probabilities = scores.softmax(1).detach();
          const at::Tensor kept = probabilities.mul(mask);
          const at::Tensor dout_abs = head.dout.to(at::kDouble).abs();
          const at::Tensor dkept = kept.mul(dout_abs.matmul(v.detach().abs().t()));
          const at::Tensor dscores = dkept.add(probabilities.mul(dkept.sum(1, true))).mul(0.3);
          const double score = q.detach().abs().matmul(k.detach().abs().t()).max().item<double>() * 0.3;

          for (const cpu::HeadKernelsOf<Number>* kernels : available) {
            head.run(*kernels, causal, p);
            const auto near = [&](const at::Tensor& got, const at::Tensor& expected, const at::Tensor& terms,
                                  const char* what) {
              const double factor = std::is_same_v<Number, float> ? 16 + 8 * score : 1.5;
              const double tolerance = kUnit<Number> * factor * terms.max().item<double>();
              EXPECT_LE(got.to(at::kDouble).sub(expected).abs().max().item<double>(), tolerance)
                  << kernels->name << " " << what << " " << queries << " x " << keys << " x " << size << " causal "
                  << causal << " dropout " << p;
            };
            near(head.out, out, kept.matmul(v.detach().abs()), "out");
            near(head.dq, q.grad(), dscores.matmul(k.detach().abs()), "dq");
            near(head.dk, k.grad(), dscores.t().matmul(q.detach().abs()), "dk");
            near(head.dv, v.grad(), kept.t().matmul(dout_abs), "dv");
          }
        }
      }
    }
  }
}

TEST(HeadKernels, EqualThePlainFormula) {
  if (cpu::head_kernels() == nullptr) GTEST_SKIP() << "this CPU has neither AVX2 nor AVX-512";
  expect_the_plain_formula<float>(cpu::available_head_kernels(), {16, 32, 48, 64});
  expect_the_plain_formula<cpu::Bfloat16>(cpu::available_bfloat16_head_kernels(), {32, 64, 96});
}

// A number that is not finite must reach the loss, where it stops the step.
template <class Number>
void expect_nan_kept(const std::vector<const cpu::HeadKernelsOf<Number>*>& available) {
  for (const cpu::HeadKernelsOf<Number>* kernels : available) {
    OneHead<Number> head;
    for (at::Tensor* x : {&head.q, &head.k, &head.v, &head.dout}) *x = at::randn({9, 32}).to(kType<Number>);
    head.k.select(0, 1).select(0, 4).fill_(std::numeric_limits<float>::quiet_NaN());
    head.run(*kernels, false, 0);
    EXPECT_TRUE(head.out.isnan().all().template item<bool>()) << kernels->name;
    EXPECT_TRUE(head.dv.isnan().all().template item<bool>()) << kernels->name;
  }
}

TEST(HeadKernels, NanIsNotHidden) {
  expect_nan_kept(cpu::available_head_kernels());
  expect_nan_kept(cpu::available_bfloat16_head_kernels());
}

}  // namespace
}  // namespace dtrain
