// Grid and random points, and the densities, the split and the choice of Optuna's TPESampler (recorded by
// tests/golden/record_sweep.py).
#include "launcher/sweep_methods.h"

#include <cmath>
#include <map>
#include <set>

#include <gtest/gtest.h>

#include "core/json.h"
#include "tests/support/files.h"

namespace dtrain {
namespace {

using Kind = SweepParameter::Kind;

SweepParameter choice_of(const std::string& name, std::vector<Json> values) {
  return {.name = name, .values = std::move(values)};
}

SweepParameter range_of(const std::string& name, Kind kind, double low, double high, double step = 0,
                        bool log = false) {
  return {.name = name, .kind = kind, .values = {}, .low = low, .high = high, .step = step, .log = log};
}

std::vector<SweepParameter> space_of(const Json& described) {
  std::vector<SweepParameter> space;
  for (const Json& each : described) {
    const auto name = each.at("name").get<std::string>();
    if (each.contains("choices")) {
      space.push_back(choice_of(name, each.at("choices").get<std::vector<Json>>()));
    } else {
      space.push_back(range_of(name, each.at("whole").get<bool>() ? Kind::kInteger : Kind::kFloat,
                               each.at("low").get<double>(), each.at("high").get<double>(),
                               each.at("step").get<double>(), each.at("log").get<bool>()));
    }
  }
  return space;
}

TEST(ParzenEstimator, EqualsOptunas) {
  const Json golden = read_json_file(test::test_data("golden/sweep.json"));
  ASSERT_EQ(golden.at("optuna"), "5.0.0");
  for (const Json& each : golden.at("cases")) {
    const std::vector<SweepParameter> space = space_of(each.at("space"));
    const auto trials = each.at("trials").get<std::vector<Point>>();
    const std::string name = each.at("space").dump() + " " + std::to_string(trials.size());
    std::vector<Observation> observations;
    for (std::size_t i = 0; i < trials.size(); ++i) {
      observations.push_back({trials[i], each.at("values")[i].get<double>()});
    }
    const Split split = split_observations(observations, each.at("maximize").get<bool>());
    EXPECT_EQ(split.good, each.at("good").get<std::vector<Point>>()) << name;
    EXPECT_EQ(split.other, each.at("other").get<std::vector<Point>>()) << name;

    const ParzenEstimator good(space, split.good);
    const ParzenEstimator other(space, split.other);
    const auto weights = each.at("weights").get<std::vector<double>>();
    ASSERT_EQ(other.weights().size(), weights.size()) << name;
    for (std::size_t k = 0; k < weights.size(); ++k) EXPECT_NEAR(other.weights()[k], weights[k], 1e-12) << name;
    for (std::size_t p = 0; p < space.size(); ++p) {
      if (each.at("deviations")[p].is_null()) continue;
      const auto deviations = each.at("deviations")[p].get<std::vector<double>>();
      ASSERT_EQ(other.deviations(p).size(), deviations.size()) << name;
      for (std::size_t k = 0; k < deviations.size(); ++k) {
        EXPECT_NEAR(other.deviations(p)[k], deviations[k], 1e-9 * deviations[k]) << name << " kernel " << k;
      }
    }
    const auto candidates = each.at("candidates").get<std::vector<Point>>();
    for (std::size_t i = 0; i < candidates.size(); ++i) {
      EXPECT_NEAR(good.log_density(candidates[i]), each.at("log_good")[i].get<double>(), 1e-9) << name;
      EXPECT_NEAR(other.log_density(candidates[i]), each.at("log_other")[i].get<double>(), 1e-9) << name;
    }
    EXPECT_EQ(best_candidate(candidates, good, other), each.at("best").get<std::size_t>()) << name;
  }
}

TEST(ParzenEstimator, TailsOfTheNormalDistribution) {
  // From mpmath with 50 digits.
  EXPECT_NEAR(log_normal_mass(-1, 1), -0.38171514630212607, 1e-14);
  EXPECT_NEAR(log_normal_mass(20, 40), -203.917155371078, 1e-9);
  EXPECT_NEAR(log_normal_mass(-40, -20), -203.917155371078, 1e-9);
  EXPECT_NEAR(log_normal_mass(-40, -30), -454.32124395634320, 1e-9);
}

// Draws follow the density: of a discrete space every point can be counted.
TEST(ParzenEstimator, DrawsFollowTheDensity) {
  const std::vector<SweepParameter> space = {range_of("a", Kind::kInteger, 1, 5, 1), choice_of("b", {"x", "y"}),
                                             range_of("c", Kind::kInteger, 1, 3, 1, true)};
  const ParzenEstimator estimator(space, {{2, 0, 3}, {5, 1, 1}, {4, 0, 2}});
  std::uint64_t state = 1;
  const Uniform uniform = [&] {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    return static_cast<double>(state >> 11U) * 0x1p-53;
  };
  constexpr int kDraws = 20000;
  std::map<Point, int> counts;
  for (int i = 0; i < kDraws; ++i) ++counts[estimator.draw(uniform)];
  double whole = 0;
  for (const double a : {1., 2., 3., 4., 5.}) {
    for (const double b : {0., 1.}) {
      for (const double c : {1., 2., 3.}) {
        const double expected = std::exp(estimator.log_density({a, b, c}));
        whole += expected;
        EXPECT_NEAR(counts[Point({a, b, c})], expected * kDraws, 5 * std::sqrt(expected * kDraws) + 1) << a << b << c;
      }
    }
  }
  EXPECT_NEAR(whole, 1, 1e-9);
  EXPECT_LE(counts.size(), 30U) << "a point outside of the space";
}

TEST(Grid, TheLastParameterChangesFastest) {
  const std::vector<SweepParameter> space = {choice_of("a", {"x", "y"}), range_of("b", Kind::kInteger, 4, 8, 2),
                                             range_of("c", Kind::kFloat, 0, 0.2, 0.1)};
  ASSERT_EQ(grid_size(space), 18);
  std::vector<Point> points;
  for (std::int64_t i = 0; i < 18; ++i) points.push_back(grid_point(space, i));
  EXPECT_EQ(points[0], (Point{0, 4, 0}));
  EXPECT_EQ(points[1], (Point{0, 4, 0.1}));
  EXPECT_EQ(points[3], (Point{0, 6, 0}));
  EXPECT_EQ(points[9], (Point{1, 4, 0}));
  EXPECT_EQ(points[17], (Point{1, 8, 0.2}));
  EXPECT_EQ(std::set<Point>(points.begin(), points.end()).size(), 18U);
  EXPECT_EQ(grid_size({range_of("b", Kind::kFloat, 0, 1)}), 0);
  EXPECT_EQ(grid_size({range_of("b", Kind::kFloat, 1, 1)}), 1);
}

TEST(RandomSearch, DependsOnSeedAndNumberOnly) {
  const std::vector<SweepParameter> space = {range_of("rate", Kind::kFloat, 1e-5, 1e-1, 0, true),
                                             range_of("steps", Kind::kInteger, 0, 100, 25), choice_of("c", {1, 2, 3})};
  std::set<double> steps;
  int below = 0;
  for (std::int64_t i = 0; i < 400; ++i) {
    const Point point = random_point(space, 7, i);
    EXPECT_EQ(point, random_point(space, 7, i));
    EXPECT_NE(point, random_point(space, 8, i));
    EXPECT_TRUE(point[0] >= 1e-5 && point[0] <= 1e-1);
    below += point[0] < 1e-3 ? 1 : 0;
    steps.insert(point[1]);
    EXPECT_TRUE(point[2] == 0 || point[2] == 1 || point[2] == 2);
  }
  EXPECT_EQ(steps, (std::set<double>{0, 25, 50, 75, 100}));
  EXPECT_NEAR(below, 200, 50) << "half of a logarithmic range lies below its geometric middle";
}

TEST(Tpe, IsRandomFirstAndThenNearTheBest) {
  SweepSettings sweep;
  sweep.method = "tpe";
  sweep.space = {range_of("x", Kind::kFloat, 0, 1), choice_of("only", {5})};
  std::vector<Observation> observations;
  double near_the_end = 0;
  for (std::int64_t i = 0; i < 40; ++i) {
    const Point point = next_point(sweep, observations, i);
    if (i < 10) {
      EXPECT_EQ(point, random_point(sweep.space, 42, i));
    }
    EXPECT_EQ(point, next_point(sweep, observations, i)) << "not a function of the history";
    EXPECT_EQ(point[1], 0);
    observations.push_back({point, std::abs(point[0] - 0.7)});
    if (i >= 30) near_the_end += std::abs(point[0] - 0.7) / 10;
  }
  // Twelve runs of Optuna's end between 0.08 and 0.17; uniform points are 0.29 away on average.
  EXPECT_LT(near_the_end, 0.2);
}

TEST(SweepValues, AreWhatTheSettingTakes) {
  EXPECT_EQ(value_of(choice_of("a", {"x", true}), 1), Json(true));
  EXPECT_EQ(value_of(range_of("a", Kind::kInteger, 1, 5, 1), 3).dump(), "3");
  EXPECT_EQ(value_of(range_of("a", Kind::kFloat, 1, 5), 3).dump(), "3.0");
}

}  // namespace
}  // namespace dtrain
