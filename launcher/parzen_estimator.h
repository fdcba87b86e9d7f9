// ParzenEstimator: the density that Optuna's TPESampler (5.0, its defaults, multivariate) fits to a set of trials. A
// mixture of one kernel for each trial and a prior; each kernel is a product over the parameters of truncated normal
// densities (in the logarithm where the range is logarithmic; of the mass of a step where there is one) and categorical
// weights. After Bergstra et al. 2011 and Watanabe 2023 (arXiv 2304.11127). Immutable.
//
// Parameters travel as doubles: the number itself, or the index of a choice.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "configs/sweep_settings.h"

namespace dtrain {

// The values of one trial, one for each parameter of the space.
using Point = std::vector<double>;

// A source of numbers, uniform in [0, 1).
using Uniform = std::function<double()>;

class ParzenEstimator {
 public:
  // `trials` in the order in which they were started: the more recent ones weigh more from 25 on. May be empty.
  ParzenEstimator(std::vector<SweepParameter> space, const std::vector<Point>& trials);

  // Of the density of a point.
  [[nodiscard]] double log_density(const Point& point) const;
  // A point drawn from the density.
  [[nodiscard]] Point draw(const Uniform& uniform) const;

  // By kernel, the prior last.
  [[nodiscard]] const std::vector<double>& weights() const { return weights_; }
  // The standard deviations of a parameter that is a range, by kernel.
  [[nodiscard]] const std::vector<double>& deviations(std::size_t parameter) const {
    return kernels_[parameter].deviation;
  }

 private:
  struct Kernels {
    // A range: by kernel; in the logarithm where the range is logarithmic.
    std::vector<double> mean;
    std::vector<double> deviation;
    double low = 0;  // the ends of the range, half a step further out where there is a step
    double high = 0;
    // A choice: by kernel and index.
    std::vector<std::vector<double>> probability;
  };
  [[nodiscard]] double log_kernel(std::size_t parameter, std::size_t kernel, double value) const;

  std::vector<SweepParameter> space_;
  std::vector<double> weights_;
  std::vector<Kernels> kernels_;  // by parameter
};

// The logarithm of the mass of the standard normal distribution between a and b, a < b.
[[nodiscard]] double log_normal_mass(double a, double b);

// The number nearest to `value` that a range allows.
[[nodiscard]] double allowed_value(const SweepParameter& parameter, double value);

}  // namespace dtrain
