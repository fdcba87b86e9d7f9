// NEFTune's noise: within the bounds of the example's own length, uniform, and of nothing but step, slot and position.
#include "trainer/kernels/embedding.h"

#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include "trainer/kernels/token_layout.h"

namespace dtrain {
namespace {

constexpr std::int64_t kSize = 64;
constexpr double kAlpha = 5;

// [rows, size] for examples of these lengths in these slots, padded to `padded`.
at::Tensor noise(const std::vector<std::int64_t>& lengths, const std::vector<std::int64_t>& slots, std::int64_t padded,
                 bool packed) {
  const auto batch = static_cast<std::int64_t>(lengths.size());
  const at::Tensor mask = at::zeros({batch, padded}, at::kLong);
  for (std::int64_t b = 0; b < batch; ++b) mask[b].narrow(0, 0, lengths[static_cast<std::size_t>(b)]).fill_(1);
  DropoutKeys keys{{42, 3}, at::tensor(slots)};
  keys.layout = make_token_layout(mask, batch, padded, at::kCPU, /*causal=*/false, packed);
  return embedding_noise(at::ones({keys.layout->rows, kSize}), kAlpha, keys, mask);
}

TEST(EmbeddingNoise, ReachesTheBoundOfTheExamplesOwnLength) {
  const at::Tensor drawn = noise({4, 100}, {0, 1}, 100, /*packed=*/true);
  ASSERT_EQ(drawn.size(0), 104);
  for (const auto& [first, length] : {std::pair<std::int64_t, std::int64_t>{0, 4}, {4, 100}}) {
    const at::Tensor own = drawn.narrow(0, first, length);
    const double bound = kAlpha / std::sqrt(static_cast<double>(length * kSize));
    const auto count = static_cast<double>(own.numel());
    EXPECT_LE(own.abs().max().item<double>(), bound);
    EXPECT_GT(own.abs().max().item<double>(), bound * (1 - 20 / count));
    // Of a uniform distribution: mean 0, variance bound^2 / 3.
    EXPECT_LT(std::abs(own.mean().item<double>()), 5 * bound / std::sqrt(3 * count));
    EXPECT_NEAR(own.square().mean().item<double>() / (bound * bound / 3), 1, 5 * std::sqrt(0.8 / count));
  }
}

TEST(EmbeddingNoise, DoesNotDependOnNeighboursAndPadding) {
  const at::Tensor together = noise({7, 20}, {5, 900}, 20, true);
  EXPECT_TRUE(at::equal(noise({7}, {5}, 7, true), together.narrow(0, 0, 7)));
  EXPECT_TRUE(at::equal(noise({20}, {900}, 20, true), together.narrow(0, 7, 20)));
  const at::Tensor padded = noise({7, 20}, {5, 900}, 32, false);
  EXPECT_TRUE(at::equal(padded.narrow(0, 0, 7), together.narrow(0, 0, 7)));
  EXPECT_TRUE(at::equal(padded.narrow(0, 32, 20), together.narrow(0, 7, 20)));
  EXPECT_FALSE(at::equal(noise({7}, {6}, 7, true), together.narrow(0, 0, 7))) << "another slot";
}

}  // namespace
}  // namespace dtrain
