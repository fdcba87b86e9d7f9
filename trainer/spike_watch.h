// SpikeWatch: whether the loss of a step stands far above those of the steps before. Pure: the same losses give the
// same answers on every rank.
#pragma once

#include <cstdint>
#include <optional>

namespace dtrain {

struct Spike {
  double mean = 0;        // of the losses before
  double deviations = 0;  // how many standard deviations above it
};

class SpikeWatch {
 public:
  static constexpr std::int64_t kWarmUpSteps = 20;  // without an answer
  static constexpr std::int64_t kMemorySteps = 50;  // of the exponentially weighted mean and variance

  // `limit` in standard deviations, > 0.
  explicit SpikeWatch(double limit) : limit_(limit) {}

  // A loss that is not finite is neither a spike nor remembered. A spike is remembered as if it were at the limit, so
  // that a lasting change of level is reported a few times and then taken as the new one.
  [[nodiscard]] std::optional<Spike> observe(double loss);

 private:
  double limit_;
  std::int64_t count_ = 0;
  double mean_ = 0;
  double variance_ = 0;
};

}  // namespace dtrain
