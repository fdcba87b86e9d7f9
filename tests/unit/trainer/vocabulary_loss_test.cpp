// The loss over a vocabulary against LibTorch's cross-entropy in double precision: values, gradients, chunks, weights.
#include "trainer/kernels/vocabulary_loss.h"

#include <vector>

#include <gtest/gtest.h>

#include <ATen/ops/allclose.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>

#include "trainer/precision.h"

namespace dtrain {
namespace {

constexpr std::int64_t kRows = 300;  // two chunks of 128 and a short one
constexpr std::int64_t kSize = 24;
constexpr std::int64_t kWords = 701;
constexpr double kIncoming = 0.37;

struct Case {
  bool with_bias;
  bool with_weights;
  double smoothing;
};

struct Inputs {
  at::Tensor hidden = at::randn({kRows, kSize}).mul(2);
  at::Tensor words = at::randn({kWords, kSize});
  at::Tensor bias = at::randn({kWords});
  at::Tensor targets = at::randint(kWords, {kRows}, at::kLong);
  at::Tensor weights = at::ones({kRows});

  Inputs() {
    // Fillers, and weights that are neither.
    for (std::int64_t i = 0; i < kRows; i += 3) weights[i] = i % 2 == 0 ? 0.0 : 0.25;
    for (at::Tensor* each : {&hidden, &words, &bias}) each->requires_grad_(true);
  }
};

double relative(const at::Tensor& mine, const at::Tensor& reference) {
  return mine.to(at::kDouble).sub(reference).abs().max().item<double>() / reference.abs().max().item<double>();
}

TEST(VocabularyLoss, EqualsCrossEntropyInDoublePrecision) {
  for (const Case& each :
       {Case{true, true, 0}, Case{false, false, 0}, Case{true, false, 0.1}, Case{false, true, 0.3}}) {
    const Inputs in;
    const VocabularyLoss loss =
        vocabulary_loss(in.hidden, {in.words, each.with_bias ? in.bias : at::Tensor()}, in.targets,
                        each.with_weights ? in.weights : at::Tensor(), each.smoothing);
    EXPECT_FALSE(loss.predicted.defined());
    EXPECT_FALSE(loss.each.requires_grad());
    loss.sum.mul(kIncoming).backward();

    std::vector<at::Tensor> exact;
    for (const at::Tensor& tensor : {in.hidden, in.words, in.bias}) {
      exact.push_back(tensor.detach().to(at::kDouble).requires_grad_(true));
    }
    const at::Tensor scores = at::linear(exact[0], exact[1], each.with_bias ? exact[2] : at::Tensor());
    const at::Tensor expected =
        at::cross_entropy_loss(scores, in.targets, {}, at::Reduction::None, -100, each.smoothing);
    const at::Tensor sum = (each.with_weights ? expected.mul(in.weights) : expected).sum();
    sum.mul(kIncoming).backward();

    EXPECT_LT(relative(loss.each, expected.detach()), 4e-6);
    EXPECT_LT(relative(loss.sum.detach(), sum.detach()), 4e-6);
    EXPECT_LT(relative(in.hidden.grad(), exact[0].grad()), 4e-6);
    EXPECT_LT(relative(in.words.grad(), exact[1].grad()), 4e-6);
    EXPECT_EQ(in.bias.grad().defined(), each.with_bias);
    if (each.with_bias) {
      EXPECT_LT(relative(in.bias.grad(), exact[2].grad()), 4e-6);
    }
  }
}

TEST(VocabularyLoss, RowsOfWeightZeroTeachNothing) {
  Inputs in;
  in.weights = at::ones({kRows});
  in.weights.narrow(0, 100, 100).zero_();
  vocabulary_loss(in.hidden, {in.words, in.bias}, in.targets, in.weights, 0).sum.backward();
  EXPECT_EQ(in.hidden.grad().narrow(0, 100, 100).abs().max().item<float>(), 0.0F);
  EXPECT_GT(in.hidden.grad().narrow(0, 0, 100).abs().max().item<float>(), 0.0F);
  // The same gradients when their words are others, however wrong.
  const at::Tensor before = in.words.grad().clone();
  in.words.mutable_grad() = at::Tensor();
  in.targets.narrow(0, 100, 100).fill_(0);
  in.hidden.detach().narrow(0, 100, 100).mul_(100);
  vocabulary_loss(in.hidden, {in.words, in.bias}, in.targets, in.weights, 0).sum.backward();
  EXPECT_TRUE(at::equal(in.words.grad(), before));
}

TEST(VocabularyLoss, WhatIsFrozenGetsNoGradient) {
  Inputs in;
  in.words.requires_grad_(false);
  vocabulary_loss(in.hidden, {in.words, in.bias}, in.targets, {}, 0).sum.backward();
  EXPECT_FALSE(in.words.grad().defined());
  EXPECT_TRUE(in.hidden.grad().defined() && in.bias.grad().defined());
  Inputs other;
  other.hidden.requires_grad_(false);
  vocabulary_loss(other.hidden, {other.words, other.bias}, other.targets, {}, 0).sum.backward();
  EXPECT_FALSE(other.hidden.grad().defined());
  EXPECT_TRUE(other.words.grad().defined());
}

TEST(VocabularyLoss, PredictsTheMostProbableWordInEvaluation) {
  const Inputs in;
  const c10::AutoGradMode no_gradient(false);
  const VocabularyLoss loss = vocabulary_loss(in.hidden, {in.words, in.bias}, in.targets, {}, 0);
  EXPECT_TRUE(at::equal(loss.predicted, at::linear(in.hidden, in.words, in.bias).argmax(1)));
  EXPECT_FALSE(loss.sum.requires_grad());
  // The first of equals.
  const VocabularyLoss ties = vocabulary_loss(in.hidden, {at::zeros_like(in.words), {}}, in.targets, {}, 0);
  EXPECT_EQ(ties.predicted.max().item<std::int64_t>(), 0);
}

TEST(VocabularyLoss, NoRowsAreNoLoss) {
  // A micro-batch in which no token is masked.
  const Inputs in;
  const at::Tensor none = in.hidden.narrow(0, 0, 0);
  const VocabularyLoss loss = vocabulary_loss(none, {in.words, in.bias}, in.targets.narrow(0, 0, 0), {}, 0);
  loss.sum.backward();
  EXPECT_EQ(loss.sum.item<float>(), 0.0F);
  EXPECT_EQ(in.words.grad().abs().max().item<float>(), 0.0F);
}

TEST(VocabularyLoss, UnderAutocastGradientsStayFloat) {
  const Inputs in;
  VocabularyLoss loss;
  {
    const AutocastScope autocast(c10::kCPU, Precision::kBfloat16);
    loss = vocabulary_loss(in.hidden, {in.words, in.bias}, in.targets, in.weights, 0);
  }
  loss.sum.backward();
  EXPECT_EQ(in.words.grad().scalar_type(), at::kFloat);
  const Inputs plain = in;
  const at::Tensor rounded = in.words.grad().clone();
  in.words.mutable_grad() = at::Tensor();
  const VocabularyLoss exact =
      vocabulary_loss(plain.hidden, {plain.words, plain.bias}, plain.targets, plain.weights, 0);
  exact.sum.backward();
  EXPECT_LT(relative(rounded, plain.words.grad().to(at::kDouble)), 0.05);
  EXPECT_LT(relative(loss.each, exact.each.to(at::kDouble)), 0.05);
  EXPECT_FALSE(at::equal(loss.each, exact.each)) << "autocast had no effect";
}

}  // namespace
}  // namespace dtrain
