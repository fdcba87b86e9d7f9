#include "launcher/sweep_methods.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.h"
#include "core/random.h"

namespace dtrain {
namespace {

constexpr std::int64_t kCandidates = 24;
constexpr std::size_t kMostGood = 25;

// Numbers that depend on (seed, trial) and on how many were drawn before.
Uniform uniform_of(std::uint64_t seed, std::int64_t number) {
  const PhiloxKey key = RandomKey{seed, static_cast<std::uint64_t>(number)}.philox();
  return [key, drawn = std::uint32_t{0}]() mutable {
    const PhiloxCounter words = philox4x32({drawn++, 0, 0, 0}, key);
    const std::uint64_t bits = (std::uint64_t{words[0]} << 32U | words[1]) >> 11U;
    return static_cast<double>(bits) * 0x1p-53;
  };
}

// How many points of a grid a parameter has.
std::int64_t grid_points(const SweepParameter& parameter) { return grid_size({parameter}); }

double random_value(const SweepParameter& parameter, double share) {
  if (parameter.kind == SweepParameter::Kind::kChoice) {
    return std::floor(share * static_cast<double>(parameter.values.size()));
  }
  // Half a step further out, so that rounding gives all steps the same share.
  double low = parameter.low - parameter.step / 2;
  double high = parameter.high + parameter.step / 2;
  if (parameter.log) {
    low = std::log(low);
    high = std::log(high);
  }
  const double value = low + share * (high - low);
  return allowed_value(parameter, parameter.log ? std::exp(value) : value);
}

}  // namespace

Point grid_point(const std::vector<SweepParameter>& space, std::int64_t number) {
  Point point(space.size());
  for (std::size_t p = space.size(); p-- > 0;) {
    const std::int64_t count = grid_points(space[p]);
    DTRAIN_CHECK(count > 0, "{} has no grid", space[p].name);
    const auto index = static_cast<double>(number % count);
    number /= count;
    point[p] = space[p].kind == SweepParameter::Kind::kChoice
                   ? index
                   : std::min(space[p].high, space[p].low + index * space[p].step);
  }
  return point;
}

Point random_point(const std::vector<SweepParameter>& space, std::uint64_t seed, std::int64_t number) {
  const Uniform uniform = uniform_of(seed, number);
  Point point;
  for (const SweepParameter& parameter : space) point.push_back(random_value(parameter, uniform()));
  return point;
}

Split split_observations(const std::vector<Observation>& observations, bool maximize) {
  std::vector<std::size_t> best_first(observations.size());
  std::iota(best_first.begin(), best_first.end(), std::size_t{0});
  std::stable_sort(best_first.begin(), best_first.end(), [&](std::size_t a, std::size_t b) {
    return maximize ? observations[a].value > observations[b].value : observations[a].value < observations[b].value;
  });
  const auto good =
      std::min<std::size_t>({static_cast<std::size_t>(std::ceil(0.1 * static_cast<double>(observations.size()))),
                             kMostGood, observations.size()});
  std::vector<bool> is_good(observations.size(), false);
  for (std::size_t i = 0; i < good; ++i) is_good[best_first[i]] = true;
  Split split;
  for (std::size_t i = 0; i < observations.size(); ++i) {
    (is_good[i] ? split.good : split.other).push_back(observations[i].point);
  }
  return split;
}

std::size_t best_candidate(const std::vector<Point>& candidates, const ParzenEstimator& good,
                           const ParzenEstimator& other) {
  std::vector<double> gains;
  for (const Point& candidate : candidates) gains.push_back(good.log_density(candidate) - other.log_density(candidate));
  return static_cast<std::size_t>(std::max_element(gains.begin(), gains.end()) - gains.begin());
}

Point tpe_point(const SweepSettings& sweep, const std::vector<Observation>& observations, std::int64_t number) {
  const auto seed = static_cast<std::uint64_t>(sweep.seed);
  Point point = random_point(sweep.space, seed, number);
  std::vector<SweepParameter> space;
  std::vector<std::size_t> places;  // in the whole space
  for (std::size_t p = 0; p < sweep.space.size(); ++p) {
    if (sweep.space[p].is_single()) continue;
    space.push_back(sweep.space[p]);
    places.push_back(p);
  }
  if (space.empty() || std::ssize(observations) < sweep.startup_trials) return point;
  Split split = split_observations(observations, sweep.maximize);
  for (std::vector<Point>* points : {&split.good, &split.other}) {
    for (Point& each : *points) {
      Point kept;
      for (const std::size_t place : places) kept.push_back(each[place]);
      each = std::move(kept);
    }
  }
  const ParzenEstimator good(space, split.good);
  const ParzenEstimator other(space, split.other);
  const Uniform uniform = uniform_of(mix64(seed), number);
  std::vector<Point> candidates;
  for (std::int64_t i = 0; i < kCandidates; ++i) candidates.push_back(good.draw(uniform));
  const Point& best = candidates[best_candidate(candidates, good, other)];
  for (std::size_t p = 0; p < places.size(); ++p) point[places[p]] = best[p];
  return point;
}

Point next_point(const SweepSettings& sweep, const std::vector<Observation>& observations, std::int64_t number) {
  if (sweep.method == "grid") return grid_point(sweep.space, number);
  if (sweep.method == "random") return random_point(sweep.space, static_cast<std::uint64_t>(sweep.seed), number);
  return tpe_point(sweep, observations, number);
}

Json value_of(const SweepParameter& parameter, double number) {
  switch (parameter.kind) {
    case SweepParameter::Kind::kChoice:
      return parameter.values[static_cast<std::size_t>(number)];
    case SweepParameter::Kind::kInteger:
      return std::llround(number);
    case SweepParameter::Kind::kFloat:
      break;
  }
  return number;
}

}  // namespace dtrain
