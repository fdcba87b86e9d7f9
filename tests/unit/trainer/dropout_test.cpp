// Counter-based dropout: the mask is right statistically, depends on what it should, and on nothing else.
#include "trainer/kernels/dropout.h"

#include <cmath>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include <ATen/Parallel.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>

#include "trainer/kernels/attention.h"
#include "trainer/kernels/cpu/rows.h"

namespace dtrain {
namespace {

DropoutKeys make_keys(std::vector<std::int64_t> slots, std::uint64_t step = 3, std::uint64_t seed = 42) {
  const auto count = static_cast<std::int64_t>(slots.size());
  return {{seed, step}, at::from_blob(slots.data(), {count}, at::kLong).clone()};
}

// 1 where an element is kept
at::Tensor kept(at::IntArrayRef shape, double p, const DropoutKeys& keys, std::uint32_t site) {
  return counter_dropout(at::ones(shape, at::kFloat), p, keys, site).ne(0).to(at::kDouble);
}

// The correlation of two masks, in standard deviations of what independent ones would have.
double correlation(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor x = a.sub(a.mean());
  const at::Tensor y = b.sub(b.mean());
  const double r =
      x.mul(y).mean().item<double>() / std::sqrt(x.square().mean().item<double>() * y.square().mean().item<double>());
  return std::abs(r) * std::sqrt(static_cast<double>(a.numel()));
}

// The definition in the header, element by element.
TEST(Dropout, MaskIsThatOfTheDefinition) {
  const DropoutKeys keys = make_keys({5, 900});
  const at::Tensor mask = kept({2, 3, 4, 21}, 0.3, keys, 7).contiguous();
  const auto* flag = mask.const_data_ptr<double>();
  const std::int64_t slots[2] = {5, 900};
  for (std::uint32_t b = 0; b < 2; ++b) {
    for (std::uint32_t g = 0; g < 3; ++g) {
      for (std::uint32_t r = 0; r < 4; ++r) {
        for (std::uint32_t c = 0; c < 21; ++c, ++flag) {
          const PhiloxCounter words =
              philox4x32({c / 8, (g << 20) + r, static_cast<std::uint32_t>(slots[b]), 7}, RandomKey{42, 3}.philox());
          const std::uint32_t bits = (words[c % 8 / 2] >> (c % 2 * 16)) & 0xFFFF;
          ASSERT_EQ(*flag, bits >= 19661 ? 1.0 : 0.0);  // round(0.3 * 65536) = 19661
        }
      }
    }
  }
}

TEST(Dropout, KeepsTheRightShareWithTheRightVariance) {
  for (const double p : {0.1, 0.5, 0.9}) {
    const at::Tensor mask =
        kept({16, 128, 512}, p, make_keys({0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}), 1);
    const auto count = static_cast<double>(mask.numel());
    const double deviation = std::sqrt(p * (1 - p) / count);
    EXPECT_NEAR(mask.mean().item<double>(), 1 - p, 5 * deviation + 1.0 / 65536);
    // Rows and columns vary like sums of independent draws.
    const double rows = mask.mean(2).var().item<double>() / (p * (1 - p) / 512);
    const double columns = mask.view({16 * 128, 512}).mean(0).var().item<double>() / (p * (1 - p) / 2048);
    EXPECT_NEAR(rows, 1, 0.2);
    EXPECT_NEAR(columns, 1, 0.35);
  }
}

TEST(Dropout, ScaleMakesTheExpectationExact) {
  const at::Tensor x = counter_dropout(at::ones({1, 1, 65536}, at::kFloat), 0.1, make_keys({0}), 0);
  EXPECT_EQ(x.max().item<float>(), 65536.0F / (65536.0F - 6554.0F));
  EXPECT_EQ(dropout_threshold(0.1), 6554U);
  EXPECT_EQ(dropout_threshold(0), 0U);
  EXPECT_EQ(dropout_threshold(1), 65536U);
}

TEST(Dropout, SitesSlotsStepsSeedsRowsAndColumnsAreIndependent) {
  const std::vector<std::int64_t> shape{2, 64, 1024};
  const at::Tensor base = kept(shape, 0.5, make_keys({0, 1}), 4);
  EXPECT_LT(correlation(base, kept(shape, 0.5, make_keys({0, 1}), 5)), 5);
  EXPECT_LT(correlation(base, kept(shape, 0.5, make_keys({2, 3}), 4)), 5);
  EXPECT_LT(correlation(base, kept(shape, 0.5, make_keys({0, 1}, 4), 4)), 5);
  EXPECT_LT(correlation(base, kept(shape, 0.5, make_keys({0, 1}, 3, 43), 4)), 5);
  EXPECT_LT(correlation(base.select(0, 0), base.select(0, 1)), 5);
  EXPECT_LT(correlation(base.narrow(1, 0, 63), base.narrow(1, 1, 63)), 5);
  EXPECT_LT(correlation(base.narrow(2, 0, 1023), base.narrow(2, 1, 1023)), 5);
  EXPECT_LT(correlation(base.narrow(2, 0, 1016), base.narrow(2, 8, 1016)), 5);
  EXPECT_GT(correlation(base, base), 100);
}

TEST(Dropout, MaskDoesNotDependOnPaddingOrSplit) {
  const at::Tensor whole = kept({4, 33, 40}, 0.2, make_keys({10, 11, 12, 13}), 2);
  const at::Tensor shorter = kept({4, 9, 40}, 0.2, make_keys({10, 11, 12, 13}), 2);
  EXPECT_TRUE(at::equal(whole.narrow(1, 0, 9), shorter));
  const at::Tensor narrower = kept({4, 33, 27}, 0.2, make_keys({10, 11, 12, 13}), 2);
  EXPECT_TRUE(at::equal(whole.narrow(2, 0, 27), narrower));
  const at::Tensor parts =
      at::cat({kept({1, 33, 40}, 0.2, make_keys({10}), 2), kept({3, 33, 40}, 0.2, make_keys({11, 12, 13}), 2)});
  EXPECT_TRUE(at::equal(whole, parts));
}

TEST(Dropout, MaskDoesNotDependOnThreads) {
  const int before = at::get_num_threads();
  const DropoutKeys keys = make_keys({0, 1, 2, 3, 4, 5, 6, 7});
  at::set_num_threads(1);
  const at::Tensor one = kept({8, 200, 384}, 0.1, keys, 2);
  at::set_num_threads(3);
  const at::Tensor three = kept({8, 200, 384}, 0.1, keys, 2);
  at::set_num_threads(before);
  EXPECT_TRUE(at::equal(one, three));
}

TEST(Dropout, TypesShareTheMask) {
  const DropoutKeys keys = make_keys({0, 1});
  const at::Tensor x = at::randn({2, 7, 45});
  const at::Tensor reference = counter_dropout(x, 0.25, keys, 3).ne(0);
  for (const auto type : {at::kBFloat16, at::kHalf}) {
    const at::Tensor low = counter_dropout(x.to(type), 0.25, keys, 3);
    EXPECT_EQ(low.scalar_type(), type);
    EXPECT_TRUE(at::equal(low.ne(0), reference));
    EXPECT_TRUE(at::equal(low, x.to(type).to(at::kFloat).mul(reference).mul(65536.0F / 49152.0F).to(type)));
  }
}

TEST(Dropout, NothingToDropIsIdentity) {
  const at::Tensor x = at::randn({2, 3, 4});
  EXPECT_TRUE(counter_dropout(x, 0, make_keys({0, 1}), 0).is_same(x));
  EXPECT_TRUE(counter_dropout(x, 0.5, {}, 0).is_same(x));
  EXPECT_TRUE(at::equal(counter_dropout_add(x, x, 0.5, {}, 0), x.mul(2)));
}

TEST(Dropout, ProbabilityOneDropsAll) {
  const at::Tensor x = at::randn({2, 3, 4}).requires_grad_();
  const at::Tensor y = counter_dropout(x, 1, make_keys({0, 1}), 0);
  EXPECT_EQ(y.abs().sum().item<float>(), 0);
  y.sum().backward();
  EXPECT_EQ(x.grad().abs().sum().item<float>(), 0);
}

TEST(Dropout, GradientIsMaskTimesScale) {
  const DropoutKeys keys = make_keys({3, 4});
  for (const auto type : {at::kFloat, at::kBFloat16, at::kHalf}) {
    at::Tensor x = at::randn({2, 5, 37}).to(type).requires_grad_();
    at::Tensor residual = at::randn({2, 5, 37}).requires_grad_();
    const at::Tensor incoming = at::randn({2, 5, 37});
    counter_dropout_add(x, residual, 0.4, keys, 9).backward(incoming);
    const at::Tensor mask = kept({2, 5, 37}, 0.4, keys, 9).to(at::kFloat);
    const float scale = 65536.0F / static_cast<float>(65536U - dropout_threshold(0.4));
    EXPECT_TRUE(at::equal(x.grad(), incoming.mul(mask).mul(scale).to(type)));
    EXPECT_TRUE(at::equal(residual.grad(), incoming));
  }
  at::Tensor x = at::randn({2, 5, 37}).requires_grad_();
  counter_dropout(x, 0.4, keys, 9).sum().backward();
  EXPECT_TRUE(at::equal(x.grad(), counter_dropout(at::ones({2, 5, 37}), 0.4, keys, 9)));
}

TEST(Dropout, AddsInOnePass) {
  const DropoutKeys keys = make_keys({3, 4});
  const at::Tensor x = at::randn({2, 5, 37});
  const at::Tensor residual = at::randn({2, 5, 37});
  EXPECT_TRUE(
      at::equal(counter_dropout_add(x, residual, 0.4, keys, 1), residual.add(counter_dropout(x, 0.4, keys, 1))));
}

// Every instruction set that this machine has, against plain C++, for lengths around all block sizes.
TEST(DropoutKernels, AllInstructionSetsGiveTheSameBits) {
  const std::vector<const cpu::RowKernels*>& kernels = cpu::available_row_kernels();
  ASSERT_GE(kernels.size(), 1U);
  for (std::size_t k = 1; k < kernels.size(); ++k) {
    for (const std::int64_t columns :
         {1, 7, 8, 9, 15, 16, 17, 31, 64, 65, 127, 128, 129, 384, 1000, 1024, 1025, 3072}) {
      for (const int in : {0, 1, 2}) {
        for (const int out : {0, 1, 2}) {
          constexpr at::ScalarType kTypes[3] = {at::kFloat, at::kBFloat16, at::kHalf};
          const at::Tensor x = at::randn({columns}).mul(100).to(kTypes[in]);
          const at::Tensor residual = at::randn({columns}).to(kTypes[out]);
          for (const bool adds : {false, true}) {
            at::Tensor results[2];
            for (int which = 0; which < 2; ++which) {
              const cpu::RowKernels& kernel = which == 0 ? *kernels[0] : *kernels[k];
              const cpu::RowDraw draw{{0x12345678, 0x9ABCDEF0}, 77, 0xFFFFFFFF, 3, 20000, 1.4F};
              results[which] = at::empty({columns}, kTypes[out]);
              kernel.dropout[in][out](draw, x.const_data_ptr(), adds ? residual.const_data_ptr() : nullptr,
                                      results[which].mutable_data_ptr(), columns);
            }
            ASSERT_TRUE(at::equal(results[0], results[1])) << kernels[k]->name << " " << columns << in << out << adds;
          }
        }
      }
      const at::Tensor wide = at::randn({columns}).mul(1e-3);
      wide[columns / 2] = std::numeric_limits<float>::quiet_NaN();
      at::Tensor halves[2];
      at::Tensor back[2];
      for (int which = 0; which < 2; ++which) {
        const cpu::RowKernels& kernel = which == 0 ? *kernels[0] : *kernels[k];
        halves[which] = at::empty({columns}, at::kBFloat16);
        back[which] = at::empty({columns}, at::kFloat);
        kernel.narrow(wide.const_data_ptr<float>(), halves[which].mutable_data_ptr(), columns);
        kernel.widen(halves[which].const_data_ptr(), back[which].mutable_data_ptr<float>(), columns);
      }
      ASSERT_TRUE(at::equal(halves[0].view(at::kShort), halves[1].view(at::kShort))) << kernels[k]->name;
      ASSERT_TRUE(at::equal(back[0].view(at::kInt), back[1].view(at::kInt))) << kernels[k]->name;
      ASSERT_TRUE(at::allclose(back[0], wide, 1.0 / 256, 0, /*equal_nan=*/true));
      for (const std::int64_t first : {0, 3, 8, 21}) {
        const cpu::RowDraw draw{{1, 2}, (5U << 20) + 3, 4, 5, 60000, 2.25F};
        const at::Tensor p = at::randn({columns}).abs();
        const at::Tensor g = at::randn({columns});
        at::Tensor p_of[2] = {p.clone(), p.clone()};
        at::Tensor g_of[2] = {g.clone(), g.clone()};
        at::Tensor dropped[2] = {p.clone(), p.clone()};
        for (int which = 0; which < 2; ++which) {
          const cpu::RowKernels& kernel = which == 0 ? *kernels[0] : *kernels[k];
          kernel.attention(draw, dropped[which].mutable_data_ptr<float>(), first, columns);
          kernel.attention_grad(draw, p_of[which].mutable_data_ptr<float>(), g_of[which].mutable_data_ptr<float>(),
                                0.3F, first, columns);
        }
        ASSERT_TRUE(at::equal(dropped[0], dropped[1])) << kernels[k]->name << " " << columns << " " << first;
        ASSERT_TRUE(at::equal(p_of[0], p_of[1])) << kernels[k]->name << " " << columns << " " << first;
        ASSERT_TRUE(at::equal(p_of[0], dropped[0]));
        ASSERT_TRUE(at::equal(g_of[0], g_of[1])) << kernels[k]->name << " " << columns << " " << first;
      }
    }
  }
}

}  // namespace
}  // namespace dtrain
