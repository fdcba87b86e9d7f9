#include "trainer/spike_watch.h"

#include <algorithm>
#include <cmath>

namespace dtrain {
namespace {

// Of a loss that hardly moves at all the smallest change would be a spike.
constexpr double kLeastDeviation = 1e-2;  // of the mean

}  // namespace

std::optional<Spike> SpikeWatch::observe(double loss) {
  if (!std::isfinite(loss)) return std::nullopt;
  std::optional<Spike> spike;
  if (count_ >= kWarmUpSteps) {
    const double deviation = std::max(std::sqrt(variance_), kLeastDeviation * std::abs(mean_));
    const double limit = mean_ + limit_ * deviation;
    if (loss > limit) {
      spike = Spike{.mean = mean_, .deviations = (loss - mean_) / deviation};
      loss = limit;
    }
  }
  ++count_;
  // Plain mean and variance at first, then with exponentially falling weights (West, 1979).
  const double weight = 1 / static_cast<double>(std::min(count_, kMemorySteps));
  const double change = loss - mean_;
  mean_ += weight * change;
  variance_ = (1 - weight) * (variance_ + weight * change * change);
  return spike;
}

}  // namespace dtrain
