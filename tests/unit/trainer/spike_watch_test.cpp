#include "trainer/spike_watch.h"

#include <cmath>
#include <limits>

#include <gtest/gtest.h>

namespace dtrain::test {
namespace {

// Losses around 2 with a standard deviation of about 0.1.
double usual(int step) { return 2 + 0.14 * std::sin(1.7 * step); }

TEST(SpikeWatch, NeedsSomeStepsAndThenSaysHowFarAbove) {
  SpikeWatch watch(8);
  EXPECT_FALSE(watch.observe(50)) << "the first loss of all is no spike";
  SpikeWatch fresh(8);
  for (int step = 0; step < 200; ++step) EXPECT_FALSE(fresh.observe(usual(step))) << step;
  EXPECT_FALSE(fresh.observe(2.5)) << "five deviations";
  EXPECT_FALSE(fresh.observe(0)) << "below is no spike";
  const std::optional<Spike> spike = fresh.observe(12);
  ASSERT_TRUE(spike);
  EXPECT_NEAR(spike->mean, 2, 0.1);
  EXPECT_GT(spike->deviations, 20);
  EXPECT_LT(spike->deviations, 200);
}

TEST(SpikeWatch, ALastingChangeIsTakenAsTheNewLevel) {
  SpikeWatch watch(8);
  for (int step = 0; step < 100; ++step) (void)watch.observe(usual(step));
  int spikes = 0;
  for (int step = 0; step < 200; ++step) spikes += watch.observe(usual(step) + 3) ? 1 : 0;
  EXPECT_GE(spikes, 1);
  EXPECT_LE(spikes, 10);
}

TEST(SpikeWatch, ConstantAndOddLosses) {
  SpikeWatch watch(8);
  for (int step = 0; step < 100; ++step) EXPECT_FALSE(watch.observe(1.0));
  EXPECT_FALSE(watch.observe(1.05)) << "less than eight percent of a loss that never moved";
  EXPECT_FALSE(watch.observe(std::numeric_limits<double>::quiet_NaN()));
  EXPECT_FALSE(watch.observe(std::numeric_limits<double>::infinity()));
  EXPECT_TRUE(watch.observe(2.0));
}

}  // namespace
}  // namespace dtrain::test
