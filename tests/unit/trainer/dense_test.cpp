// Linear layers, GELU and embeddings of the CPU: LibTorch in double as reference, every instruction set.
#include "trainer/kernels/dense.h"

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include <ATen/ops/addmm.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include "trainer/kernels/cpu/dense.h"
#include "trainer/kernels/embedding.h"
#include "trainer/precision.h"

namespace dtrain {
namespace {

// `terms`: the sum of the magnitudes that were added to each element, which rounding is relative to.
void expect_near(const at::Tensor& got, const at::Tensor& expected, const at::Tensor& terms, const std::string& what) {
  constexpr double kRelative = 2e-6;
  ASSERT_EQ(got.sizes(), expected.sizes()) << what;
  const double tolerance = kRelative * terms.max().item<double>();
  EXPECT_LE(got.detach().to(at::kDouble).sub(expected).abs().max().item<double>(), tolerance) << what;
}

at::Tensor leaf(const at::Tensor& x) { return x.detach().to(at::kDouble).clone().requires_grad_(); }

struct Shape {
  std::int64_t rows, in;
  std::vector<std::int64_t> outs;
};

// Widths that the kernels take and widths that they leave to LibTorch, rows beside the sizes of tiles and pieces.
const std::vector<Shape> kShapes{{48, 32, {32}},  {97, 64, {32, 64}}, {131, 416, {96, 96, 96}}, {600, 800, {64}},
                                 {203, 33, {32}}, {50, 64, {7}},      {3, 64, {64, 64}},        {1, 32, {96}}};

// The parts of a layer with random numbers, and the same in double as `copy` makes them.
struct RandomParts {
  RandomParts(const Shape& shape, WeightOrder order, at::Tensor (*copy)(const at::Tensor&)) {
    const bool out_first = order == WeightOrder::kOutIn;
    for (const std::int64_t out : shape.outs) {
      parts.push_back({at::randn({out_first ? out : shape.in, out_first ? shape.in : out}).requires_grad_(),
                       at::randn({out}).requires_grad_()});
      parts64.push_back({copy(parts.back().weight), copy(parts.back().bias)});
    }
  }
  std::vector<DensePart> parts;
  std::vector<DensePart> parts64;
};

TEST(Dense, EqualsLinearInDouble) {
  for (const Shape& shape : kShapes) {
    for (const WeightOrder order : {WeightOrder::kOutIn, WeightOrder::kInOut}) {
      const std::string what =
          fmt::format("{} x {}, {} parts, order {}", shape.rows, shape.in, shape.outs.size(), static_cast<int>(order));
      const at::Tensor x = at::randn({shape.rows, shape.in + 5}).narrow(1, 2, shape.in).detach().requires_grad_();
      const at::Tensor x64 = leaf(x);
      const auto [parts, parts64] = RandomParts(shape, order, leaf);
      std::vector<at::Tensor> expected;
      for (const auto& [weight, bias] : parts64) {
        expected.push_back(at::linear(x64, order == WeightOrder::kOutIn ? weight : weight.t(), bias));
      }
      const at::Tensor result = dense(x, parts, order);
      const at::Tensor reference = at::cat(expected, 1);
      const at::Tensor magnitude = at::zeros({1}, at::kDouble).add(static_cast<double>(10 * shape.in));
      expect_near(result, reference, magnitude, what);
      const at::Tensor incoming = at::randn(result.sizes());
      result.backward(incoming);
      reference.backward(incoming.to(at::kDouble));
      const at::Tensor summed = magnitude.add(static_cast<double>(10 * (shape.rows + result.size(1))));
      expect_near(x.grad(), x64.grad(), summed, what + " dx");
      for (std::size_t i = 0; i < parts.size(); ++i) {
        expect_near(parts[i].weight.grad(), parts64[i].weight.grad(), summed, what + " dweight");
        expect_near(parts[i].bias.grad(), parts64[i].bias.grad(), summed, what + " dbias");
      }
    }
  }
}

TEST(Dense, GeluEqualsLibTorchInDouble) {
  for (const Shape& shape : kShapes) {
    if (shape.outs.size() > 1) continue;
    for (const bool tanh : {false, true}) {
      const std::string what = fmt::format("{} x {} tanh {}", shape.rows, shape.in, tanh);
      const at::Tensor x = at::randn({shape.rows, shape.in}).requires_grad_();
      const DensePart part{at::randn({shape.outs[0], shape.in}).mul(0.3).requires_grad_(),
                           at::randn({shape.outs[0]}).requires_grad_()};
      const at::Tensor x64 = leaf(x);
      const DensePart part64{leaf(part.weight), leaf(part.bias)};
      const at::Tensor result = dense_gelu(x, part, WeightOrder::kOutIn, tanh);
      const at::Tensor reference = at::gelu(at::linear(x64, part64.weight, part64.bias), tanh ? "tanh" : "none");
      const at::Tensor magnitude = at::zeros({1}, at::kDouble).add(static_cast<double>(5 * shape.in));
      expect_near(result, reference, magnitude, what);
      {
        const c10::AutoGradMode no_grad(false);  // another path: nothing is kept
        EXPECT_TRUE(at::equal(dense_gelu(x, part, WeightOrder::kOutIn, tanh), result)) << what;
      }
      const at::Tensor incoming = at::randn(result.sizes());
      result.backward(incoming);
      reference.backward(incoming.to(at::kDouble));
      const at::Tensor summed = magnitude.add(static_cast<double>(5 * (shape.rows + shape.outs[0])));
      expect_near(x.grad(), x64.grad(), summed, what + " dx");
      expect_near(part.weight.grad(), part64.weight.grad(), summed, what + " dweight");
      expect_near(part.bias.grad(), part64.bias.grad(), summed, what + " dbias");
    }
  }
}

// Under autocast: products of rounded inputs and weights, results rounded to bfloat16, and sums over rows in float32.
TEST(Dense, Bfloat16EqualsDoubleOfRoundedNumbers) {
  const auto rounded = [](const at::Tensor& x) { return leaf(x.detach().to(at::kBFloat16)); };
  const auto expect_close = [](const at::Tensor& got, const at::Tensor& expected, double relative,
                               const std::string& what) {
    ASSERT_EQ(got.sizes(), expected.sizes()) << what;
    EXPECT_LE(got.detach().to(at::kDouble).sub(expected).abs().max().item<double>(),
              relative * expected.abs().max().item<double>())
        << what;
  };
  const AutocastScope autocast(c10::kCPU, Precision::kBfloat16);
  for (const Shape& shape : kShapes) {
    if (shape.rows < 48) continue;
    for (const WeightOrder order : {WeightOrder::kOutIn, WeightOrder::kInOut}) {
      for (const int gelu : {0, 1, 2}) {
        if (gelu > 0 && shape.outs.size() > 1) continue;
        const std::string what = fmt::format("{} x {}, {} parts, order {}, gelu {}", shape.rows, shape.in,
                                             shape.outs.size(), static_cast<int>(order), gelu);
        const at::Tensor x = at::randn({shape.rows, shape.in + 5}).narrow(1, 2, shape.in).detach().requires_grad_();
        const at::Tensor x64 = rounded(x);
        const auto [parts, parts64] = RandomParts(shape, order, rounded);
        std::vector<at::Tensor> products;
        for (const auto& [weight, bias] : parts64) {
          products.push_back(at::matmul(x64, order == WeightOrder::kOutIn ? weight.t() : weight).add(bias));
        }
        const at::Tensor result = gelu == 0 ? dense(x, parts, order) : dense_gelu(x, parts[0], order, gelu == 2);
        at::Tensor reference = at::cat(products, 1);
        if (gelu > 0) reference = at::gelu(reference, gelu == 2 ? "tanh" : "none");
        EXPECT_EQ(result.scalar_type(), at::kBFloat16);
        expect_close(result, reference, 0.01, what);
        {
          const c10::AutoGradMode no_grad(false);  // another path: nothing is kept
          EXPECT_TRUE(
              at::equal(gelu == 0 ? dense(x, parts, order) : dense_gelu(x, parts[0], order, gelu == 2), result));
        }
        const at::Tensor incoming = at::randn(result.sizes()).to(at::kBFloat16);
        result.backward(incoming);
        reference.backward(incoming.to(at::kDouble));
        EXPECT_EQ(x.grad().scalar_type(), at::kFloat);
        expect_close(x.grad(), x64.grad(), 0.02, what + " dx");
        for (std::size_t i = 0; i < parts.size(); ++i) {
          expect_close(parts[i].weight.grad(), parts64[i].weight.grad(), 0.02, what + " dweight");
          expect_close(parts[i].bias.grad(), parts64[i].bias.grad(), gelu == 0 ? 1e-5 : 0.02, what + " dbias");
        }
      }
    }
  }
}

// A frozen layer costs nothing and gets nothing.
TEST(Dense, FrozenWeightsGetNoGradient) {
  const at::Tensor x = at::randn({64, 32}).requires_grad_();
  const DensePart part{at::randn({32, 32}), at::randn({32})};
  dense(x, {part}, WeightOrder::kOutIn).sum().backward();
  EXPECT_TRUE(x.grad().defined());
  EXPECT_FALSE(part.weight.grad().defined());
  EXPECT_FALSE(part.bias.grad().defined());
}

// The bits of a row depend on neither the other rows nor their number.
TEST(Dense, RowsDoNotDependOnTheBatch) {
  if (cpu::dense_kernels() == nullptr) GTEST_SKIP() << "this CPU has neither AVX2 nor AVX-512";
  const at::Tensor x = at::randn({1000, 512});
  const DensePart part{at::randn({64, 512}), at::randn({64})};
  const at::Tensor all = dense(x, {part}, WeightOrder::kOutIn);
  for (const auto& [first, count] :
       std::vector<std::pair<std::int64_t, std::int64_t>>{{0, 48}, {17, 501}, {900, 100}}) {
    EXPECT_TRUE(at::equal(dense(x.narrow(0, first, count), {part}, WeightOrder::kOutIn), all.narrow(0, first, count)));
  }
}

TEST(DenseKernels, GeluOfEveryInstructionSet) {
  if (cpu::dense_kernels() == nullptr) GTEST_SKIP() << "this CPU has neither AVX2 nor AVX-512";
  const at::Tensor x = at::arange(-12.0, 12.0, 0.001, at::kFloat);
  const std::int64_t count = x.numel();
  for (const cpu::DenseKernels* kernels : cpu::available_dense_kernels()) {
    for (const bool tanh : {false, true}) {
      const cpu::Gelu form = tanh ? cpu::Gelu::kTanh : cpu::Gelu::kErf;
      const at::Tensor y = at::empty({count});
      kernels->gelu(form, x.const_data_ptr<float>(), y.mutable_data_ptr<float>(), count);
      const at::Tensor x64 = leaf(x);
      const at::Tensor reference = at::gelu(x64, tanh ? "tanh" : "none");
      EXPECT_LT(y.to(at::kDouble).sub(reference).abs().max().item<double>(), 1.5e-6) << kernels->name << tanh;
      const at::Tensor dy = at::empty({count}).fill_(2);
      const at::Tensor dx = at::empty({count});
      const at::Tensor sums = at::empty({count}).fill_(1);
      kernels->gelu_backward(form, x.const_data_ptr<float>(), dy.const_data_ptr<float>(), dx.mutable_data_ptr<float>(),
                             sums.mutable_data_ptr<float>(), count);
      reference.sum().backward();
      EXPECT_LT(dx.to(at::kDouble).sub(x64.grad().mul(2)).abs().max().item<double>(), 3e-6) << kernels->name << tanh;
      EXPECT_TRUE(at::equal(sums, dx.add(1))) << kernels->name;
      // Values that are not finite must reach the loss.
      const float odd[2] = {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()};
      float result[2];
      kernels->gelu(form, odd, result, 2);
      EXPECT_TRUE(std::isnan(result[0])) << kernels->name << tanh;
      EXPECT_EQ(result[1], odd[1]) << kernels->name << tanh;
    }
  }
}

TEST(DenseKernels, ProductsOfEveryInstructionSet) {
  if (cpu::dense_kernels() == nullptr) GTEST_SKIP() << "this CPU has neither AVX2 nor AVX-512";
  for (const cpu::DenseKernels* kernels : cpu::available_dense_kernels()) {
    for (const std::int64_t rows : {1, 5, 6, 7, 11, 12, 13, 40}) {
      for (const std::int64_t depth : {8, 192, 200, 384, 400, 777}) {
        const at::Tensor a = at::randn({rows, depth + 3}).narrow(1, 1, depth);
        const at::Tensor b = at::randn({depth, kernels->panel});
        const at::Tensor packed = at::empty({depth, kernels->panel});
        kernels->pack({b.const_data_ptr<float>(), kernels->panel, 1}, depth, packed.mutable_data_ptr<float>());
        EXPECT_TRUE(at::equal(packed, b)) << kernels->name;
        const at::Tensor columns = b.t().contiguous();
        packed.zero_();
        kernels->pack({columns.const_data_ptr<float>(), 1, depth}, depth, packed.mutable_data_ptr<float>());
        EXPECT_TRUE(at::equal(packed, b)) << kernels->name << " " << depth;
        const at::Tensor c = at::empty({rows, kernels->panel + 2});
        kernels->multiply({a.const_data_ptr<float>(), a.stride(0)}, rows, depth, packed.const_data_ptr<float>(),
                          kernels->panel, nullptr, {c.mutable_data_ptr<float>(), c.stride(0)});
        expect_near(c.narrow(1, 0, kernels->panel), a.to(at::kDouble).matmul(b.to(at::kDouble)),
                    a.abs().to(at::kDouble).matmul(b.abs().to(at::kDouble)), kernels->name);
      }
    }
  }
}

TEST(SplitColumns, TakesGradientsThatLieSideBySideAsTheyAre) {
  const at::Tensor x = at::randn({5, 6}).requires_grad_();
  const std::vector<at::Tensor> parts = split_columns(x, 3);
  ASSERT_EQ(parts.size(), 3U);
  EXPECT_TRUE(at::equal(parts[1], x.narrow(1, 2, 2)));
  parts[0].mul(2).add(parts[2].mul(3)).sum().backward();  // part 1 unused, parts 0 and 2 in tensors of their own
  EXPECT_TRUE(at::equal(x.grad(), at::tensor({2.0F, 2.0F, 0.0F, 0.0F, 3.0F, 3.0F}).expand({5, 6})));
}

TEST(EmbeddingSum, EqualsLibTorchInDouble) {
  const std::int64_t rows = 700;
  const at::Tensor words = at::randn({50, 48}).requires_grad_();
  const at::Tensor types = at::randn({2, 48}).requires_grad_();
  const at::Tensor positions = at::randn({900, 48}).requires_grad_();
  const at::Tensor ids = at::randint(0, 50, {rows}, at::kLong);
  const at::Tensor type = at::zeros({1}, at::kLong);
  const at::Tensor position = at::arange(rows, at::kLong);
  const at::Tensor incoming = at::randn({rows, 48});
  const at::Tensor words64 = leaf(words);
  const at::Tensor types64 = leaf(types);
  const at::Tensor positions64 = leaf(positions);
  at::embedding(words64, ids, 3)
      .add(at::embedding(types64, type))
      .add(at::embedding(positions64, position))
      .backward(incoming.to(at::kDouble));
  for (const bool gradients_exist : {false, true}) {
    for (const at::Tensor* table : {&words, &types, &positions}) {
      table->mutable_grad() = gradients_exist ? at::zeros(table->sizes()).add(1) : at::Tensor();
    }
    const at::Tensor sum = embedding_sum({{words, ids, 3}, {types, type}, {positions, position}});
    EXPECT_TRUE(
        at::equal(sum, at::embedding(words, ids).add(at::embedding(types, type)).add(positions.narrow(0, 0, rows))));
    sum.backward(incoming);
    const double before = gradients_exist ? 1 : 0;
    const at::Tensor terms = at::zeros({1}, at::kDouble).add(100);
    expect_near(words.grad().sub(before), words64.grad(), terms, "words");
    expect_near(types.grad().sub(before), types64.grad(), terms.mul(10), "types");
    expect_near(positions.grad().sub(before), positions64.grad(), terms, "positions");
    EXPECT_FALSE(words.grad().is_sparse());
    EXPECT_EQ(words.grad().select(0, 3).sub(before).abs().max().item<float>(), 0) << "the padding row";
  }
}

}  // namespace
}  // namespace dtrain
