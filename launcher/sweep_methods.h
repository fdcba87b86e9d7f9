// Which point a sweep tries next: grid, random, and the rule of Optuna's TPESampler. Pure functions of the settings,
// the number of the trial and the results so far, so that an interrupted sweep goes on as if it had not been.
#pragma once

#include <cstdint>
#include <vector>

#include "configs/sweep_settings.h"
#include "launcher/parzen_estimator.h"

namespace dtrain {

// A trial that has a result, in the order in which trials were started.
struct Observation {
  Point point = {};
  double value = 0;
};

// Point `number` of the grid: the last parameter changes fastest.
[[nodiscard]] Point grid_point(const std::vector<SweepParameter>& space, std::int64_t number);

// Uniform over each parameter; over the logarithm of one that is logarithmic. Depends on nothing but the arguments.
[[nodiscard]] Point random_point(const std::vector<SweepParameter>& space, std::uint64_t seed, std::int64_t number);

// Optuna's split: the best min(ceil(n / 10), 25) trials, and the others; both in the order of the trials. Of equal
// values the earlier one is the better.
struct Split {
  std::vector<Point> good;
  std::vector<Point> other;
};
[[nodiscard]] Split split_observations(const std::vector<Observation>& observations, bool maximize);

// The index of the candidate with the highest density among the good trials against that among the others, Optuna's
// acquisition; of equal ones the first.
[[nodiscard]] std::size_t best_candidate(const std::vector<Point>& candidates, const ParzenEstimator& good,
                                         const ParzenEstimator& other);

// The next point: random for the first startup_trials results, then the best of 24 candidates drawn from the good
// trials. Parameters with a single value take no part in the estimate.
[[nodiscard]] Point tpe_point(const SweepSettings& sweep, const std::vector<Observation>& observations,
                              std::int64_t number);

// What the sweep tries as trial `number` (from 0).
[[nodiscard]] Point next_point(const SweepSettings& sweep, const std::vector<Observation>& observations,
                               std::int64_t number);

// A number of a point as the setting's value.
[[nodiscard]] Json value_of(const SweepParameter& parameter, double number);

}  // namespace dtrain
