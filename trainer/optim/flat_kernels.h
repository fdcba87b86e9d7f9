// The two passes over all parameters that every step makes on the CPU, as loops over plain float32 memory, run by
// LibTorch's threads. Elements are cut into pieces of a fixed size, so that results do not depend on the number of
// threads.
#pragma once

#include <cstdint>
#include <vector>

namespace dtrain {

// One parameter: `count` elements of each array.
struct AdamWTask {
  float* value = nullptr;
  const float* gradient = nullptr;
  float* exp_avg = nullptr;
  float* exp_avg_sq = nullptr;
  std::int64_t count = 0;
  double decay_factor = 1;      // 1 - learning_rate * weight_decay
  double step_size = 0;         // learning_rate / (1 - beta1^t)
  double correction2_sqrt = 1;  // sqrt(1 - beta2^t)
};

struct AdamWFactors {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double gradient_scale = 1;
};

void adamw_update(const std::vector<AdamWTask>& tasks, const AdamWFactors& factors);

struct FloatSpan {
  const float* data = nullptr;
  std::int64_t count = 0;
};

// The sum of squares of each span, accumulated in float64.
[[nodiscard]] std::vector<double> sums_of_squares(const std::vector<FloatSpan>& spans);

}  // namespace dtrain
