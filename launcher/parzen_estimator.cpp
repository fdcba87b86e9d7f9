#include "launcher/parzen_estimator.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>

#include "core/error.h"

namespace dtrain {
namespace {

constexpr double kPriorWeight = 1.0;
constexpr std::size_t kFullWeights = 25;  // trials of full weight, the most recent ones
constexpr double kMostKernels = 100;      // the narrowest kernel is this part of the range
constexpr double kInfinity = std::numeric_limits<double>::infinity();

bool is_range(const SweepParameter& parameter) { return parameter.kind != SweepParameter::Kind::kChoice; }

// The logarithm of the standard normal distribution function. Far out, where erfc underflows, by its asymptotic series.
double log_normal_cdf(double x) {
  constexpr double kSeries = -20;
  if (x > kSeries) return std::log(0.5 * std::erfc(-x / std::numbers::sqrt2));
  double sum = 1;
  double term = 1;
  for (int i = 1; std::abs(term) > std::numeric_limits<double>::epsilon(); ++i) {
    term *= -(2.0 * i - 1) / (x * x);
    sum += term;
  }
  return -0.5 * x * x - std::log(-x) - 0.5 * std::log(2 * std::numbers::pi) + std::log(sum);
}

std::vector<double> trial_weights(std::size_t trials) {
  std::vector<double> weights(trials, 1.0);
  if (trials < kFullWeights) return weights;
  // A ramp from 1/n to 1 over all but the last 25, both ends included.
  const std::size_t ramp = trials - kFullWeights;
  const double first = 1.0 / static_cast<double>(trials);
  for (std::size_t i = 0; i < ramp; ++i) {
    weights[i] = ramp == 1 ? first : first + (1.0 - first) * static_cast<double>(i) / static_cast<double>(ramp - 1);
  }
  return weights;
}

// The distance to the farther of the two neighbours, within limits. `low` and `high` count as neighbours, except for
// the outermost of two or more.
std::vector<double> deviations_of(const std::vector<double>& means, double low, double high) {
  const std::size_t count = means.size();
  std::vector<std::size_t> by_mean(count);
  std::iota(by_mean.begin(), by_mean.end(), std::size_t{0});
  std::stable_sort(by_mean.begin(), by_mean.end(), [&](std::size_t a, std::size_t b) { return means[a] < means[b]; });
  const double widest = high - low;
  const double narrowest = widest / std::min(kMostKernels, 2.0 + static_cast<double>(count));
  std::vector<double> deviations(count);
  for (std::size_t place = 0; place < count; ++place) {
    const double mean = means[by_mean[place]];
    const bool first = place == 0;
    const bool last = place + 1 == count;
    double left = first ? mean - low : mean - means[by_mean[place - 1]];
    double right = last ? high - mean : means[by_mean[place + 1]] - mean;
    if (count >= 2 && first) left = 0;
    if (count >= 2 && last) right = 0;
    deviations[by_mean[place]] = std::clamp(std::max(left, right), narrowest, widest);
  }
  return deviations;
}

double to_scale(const SweepParameter& parameter, double value) { return parameter.log ? std::log(value) : value; }

}  // namespace

double log_normal_mass(double a, double b) {
  // The left tail is the accurate one.
  if (a > 0) return log_normal_mass(-b, -a);
  if (b <= 0) {
    const double upper = log_normal_cdf(b);
    return upper + std::log1p(-std::exp(log_normal_cdf(a) - upper));
  }
  return std::log1p(-0.5 * std::erfc(-a / std::numbers::sqrt2) - 0.5 * std::erfc(b / std::numbers::sqrt2));
}

double allowed_value(const SweepParameter& parameter, double value) {
  if (parameter.step > 0) {
    value = parameter.low + std::nearbyint((value - parameter.low) / parameter.step) * parameter.step;
  }
  return std::clamp(value, parameter.low, parameter.high);
}

ParzenEstimator::ParzenEstimator(std::vector<SweepParameter> space, const std::vector<Point>& trials)
    : space_(std::move(space)), weights_(trial_weights(trials.size())) {
  weights_.push_back(kPriorWeight);
  const double sum = std::accumulate(weights_.begin(), weights_.end(), 0.0);
  for (double& weight : weights_) weight /= sum;
  for (std::size_t p = 0; p < space_.size(); ++p) {
    const SweepParameter& parameter = space_[p];
    Kernels kernels;
    if (is_range(parameter)) {
      kernels.low = to_scale(parameter, parameter.low - parameter.step / 2);
      kernels.high = to_scale(parameter, parameter.high + parameter.step / 2);
      for (const Point& trial : trials) kernels.mean.push_back(to_scale(parameter, trial[p]));
      kernels.deviation = deviations_of(kernels.mean, kernels.low, kernels.high);
      kernels.mean.push_back(0.5 * (kernels.low + kernels.high));
      kernels.deviation.push_back(kernels.high - kernels.low);
    } else {
      const std::size_t choices = parameter.values.size();
      const double share = kPriorWeight / static_cast<double>(weights_.size());
      for (std::size_t k = 0; k < weights_.size(); ++k) {
        std::vector<double>& probability = kernels.probability.emplace_back(choices, share);
        if (k < trials.size()) probability[static_cast<std::size_t>(trials[k][p])] += 1;
        const double all = std::accumulate(probability.begin(), probability.end(), 0.0);
        for (double& each : probability) each /= all;
      }
    }
    kernels_.push_back(std::move(kernels));
  }
}

double ParzenEstimator::log_kernel(std::size_t parameter, std::size_t kernel, double value) const {
  const SweepParameter& spec = space_[parameter];
  const Kernels& kernels = kernels_[parameter];
  if (!is_range(spec)) return std::log(kernels.probability[kernel][static_cast<std::size_t>(value)]);
  const double mean = kernels.mean[kernel];
  const double deviation = kernels.deviation[kernel];
  const auto standard = [&](double x) { return (x - mean) / deviation; };
  const double whole = log_normal_mass(standard(kernels.low), standard(kernels.high));
  if (spec.step > 0) {
    return log_normal_mass(standard(to_scale(spec, value - spec.step / 2)),
                           standard(to_scale(spec, value + spec.step / 2))) -
           whole;
  }
  const double x = to_scale(spec, value);
  if (x < kernels.low || x > kernels.high) return -kInfinity;
  const double z = standard(x);
  return -0.5 * z * z - 0.5 * std::log(2 * std::numbers::pi) - whole - std::log(deviation);
}

double ParzenEstimator::log_density(const Point& point) const {
  DTRAIN_CHECK(point.size() == space_.size(), "a point of {} in a space of {}", point.size(), space_.size());
  std::vector<double> terms;
  for (std::size_t k = 0; k < weights_.size(); ++k) {
    double term = std::log(weights_[k]);
    for (std::size_t p = 0; p < space_.size(); ++p) term += log_kernel(p, k, point[p]);
    terms.push_back(term);
  }
  const double largest = *std::max_element(terms.begin(), terms.end());
  if (largest == -kInfinity) return largest;
  double sum = 0;
  for (const double term : terms) sum += std::exp(term - largest);
  return std::log(sum) + largest;
}

Point ParzenEstimator::draw(const Uniform& uniform) const {
  const auto index_of = [](const std::vector<double>& probabilities, double share) {
    std::size_t index = 0;
    for (double sum = probabilities[0]; index + 1 < probabilities.size() && sum <= share;)
      sum += probabilities[++index];
    return index;
  };
  const std::size_t kernel = index_of(weights_, uniform());
  Point point;
  for (std::size_t p = 0; p < space_.size(); ++p) {
    const Kernels& kernels = kernels_[p];
    const double share = uniform();
    if (!is_range(space_[p])) {
      point.push_back(static_cast<double>(index_of(kernels.probability[kernel], share)));
      continue;
    }
    // The truncated distribution function is inverted by halving: 60 steps reach the last bit, and speed is no matter.
    const double a = (kernels.low - kernels.mean[kernel]) / kernels.deviation[kernel];
    const double b = (kernels.high - kernels.mean[kernel]) / kernels.deviation[kernel];
    const double whole = log_normal_mass(a, b);
    double below = a;
    double above = b;
    for (int i = 0; i < 60; ++i) {
      const double middle = 0.5 * (below + above);
      (middle > a && std::exp(log_normal_mass(a, middle) - whole) <= share ? below : above) = middle;
    }
    const double x = kernels.mean[kernel] + 0.5 * (below + above) * kernels.deviation[kernel];
    point.push_back(allowed_value(space_[p], space_[p].log ? std::exp(x) : x));
  }
  return point;
}

}  // namespace dtrain
