// Activations that are computed again: the same gradients to the last bit, the same random draws, nothing kept.
#include "trainer/kernels/recompute.h"

#include <vector>

#include <gtest/gtest.h>

#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tanh.h>
#include <c10/core/GradMode.h>

#include "trainer/kernels/dropout.h"
#include "trainer/precision.h"

namespace dtrain {
namespace {

// Two layers with dropout between; counts how often, and whether with a graph, each is computed.
struct Parts {
  at::Tensor first = at::randn({16, 16}).requires_grad_(true);
  at::Tensor second = at::randn({16, 16}).requires_grad_(true);
  DropoutKeys keys{{42, 3}, at::arange(8, at::kLong)};
  std::vector<bool> with_graph;

  ModelPart layer(const at::Tensor& weight, std::uint32_t site) {
    return [this, weight, site](const std::vector<at::Tensor>& inputs) {
      with_graph.push_back(c10::GradMode::is_enabled());
      return at::tanh(counter_dropout(at::linear(inputs[0], weight), 0.3, keys, site));
    };
  }
  // The sum of squares of both layers; `again`: the first or both are computed again.
  at::Tensor loss(const at::Tensor& x, bool first_again, bool second_again) {
    const ModelPart one = layer(first, 1);
    const ModelPart two = layer(second, 2);
    const at::Tensor y = first_again ? recompute(one, {x}) : one({x});
    return (second_again ? recompute(two, {y}) : two({y})).square().sum();
  }
};

TEST(Recompute, GradientsAreTheSameBits) {
  for (const bool input_wants : {true, false}) {
    const at::Tensor x = at::randn({8, 16});
    Parts plain;
    const at::Tensor input = x.clone().requires_grad_(input_wants);
    const at::Tensor expected = plain.loss(input, false, false);
    expected.backward();
    for (const auto& [one, two] : {std::pair{true, false}, {false, true}, {true, true}}) {
      Parts parts;
      parts.first = plain.first.detach().clone().requires_grad_(true);
      parts.second = plain.second.detach().clone().requires_grad_(true);
      const at::Tensor other = x.clone().requires_grad_(input_wants);
      const at::Tensor loss = parts.loss(other, one, two);
      loss.backward();
      EXPECT_TRUE(at::equal(loss, expected));
      EXPECT_TRUE(at::equal(parts.first.grad(), plain.first.grad())) << input_wants << one << two;
      EXPECT_TRUE(at::equal(parts.second.grad(), plain.second.grad()));
      EXPECT_EQ(other.grad().defined(), input_wants);
      if (input_wants) {
        EXPECT_TRUE(at::equal(other.grad(), input.grad()));
      }
    }
  }
}

TEST(Recompute, KeepsNoGraphInTheFirstPass) {
  Parts parts;
  const at::Tensor loss = parts.loss(at::randn({8, 16}), true, true);
  EXPECT_EQ(parts.with_graph, (std::vector<bool>{false, false}));
  loss.backward();
  EXPECT_EQ(parts.with_graph, (std::vector<bool>{false, false, true, true}));
}

TEST(Recompute, IsAPlainCallWithoutGradients) {
  Parts parts;
  const c10::AutoGradMode no_gradient(false);
  EXPECT_FALSE(parts.loss(at::randn({8, 16}), true, true).requires_grad());
  EXPECT_EQ(parts.with_graph.size(), 2U);
}

TEST(Recompute, AFrozenPartPassesTheGradientOn) {
  Parts parts;
  parts.first.requires_grad_(false);
  parts.second.requires_grad_(false);
  const at::Tensor x = at::randn({8, 16}).requires_grad_(true);
  parts.loss(x, true, true).backward();
  EXPECT_FALSE(parts.first.grad().defined());
  EXPECT_GT(x.grad().abs().max().item<float>(), 0.0F);
}

TEST(Recompute, GradientsAddUp) {
  Parts parts;
  const at::Tensor x = at::randn({8, 16});
  parts.loss(x, true, true).backward();
  const at::Tensor once = parts.first.grad().clone();
  parts.loss(x, true, true).backward();
  EXPECT_TRUE(at::equal(parts.first.grad(), once.mul(2)));
}

TEST(Recompute, TheSecondPassHasTheTypesOfTheFirst) {
  const at::Tensor x = at::randn({8, 16});
  std::vector<at::Tensor> gradients;
  for (const bool again : {false, true}) {
    Parts parts;
    parts.first = at::arange(256, at::kFloat).div(2560).reshape({16, 16}).requires_grad_(true);
    parts.second = at::arange(256, at::kFloat).div(-2560).reshape({16, 16}).requires_grad_(true);
    at::Tensor loss;
    {
      const AutocastScope autocast(c10::kCPU, Precision::kBfloat16);
      loss = parts.loss(x, again, again).to(at::kFloat);
    }
    loss.backward();  // outside: the second pass must turn autocast on by itself
    gradients.push_back(parts.first.grad().clone());
  }
  EXPECT_TRUE(at::equal(gradients[0], gradients[1]));
}

}  // namespace
}  // namespace dtrain
