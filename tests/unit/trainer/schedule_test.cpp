// Schedules against the values that transformers gives (tests/golden/record_optim.py).
#include <gtest/gtest.h>

#include "core/error.h"
#include "tests/support/files.h"
#include "trainer/optim/lr_schedule.h"

namespace dtrain {
namespace {

TEST(Schedule, EqualsTransformers) {
  const Json golden = read_json_file(test::test_data("golden/optim.json"));
  std::size_t points = 0;
  for (const Json& each : golden.at("schedules")) {
    const LrSchedule schedule = make_lr_schedule({.name = each.at("name").get<std::string>(),
                                                  .warmup_steps = each.at("warmup").get<std::int64_t>(),
                                                  .total_steps = each.at("total").get<std::int64_t>(),
                                                  .learning_rate = each.at("learning_rate").get<double>(),
                                                  .kwargs = each.at("kwargs")});
    for (const Json& point : each.at("points")) {
      const auto step = point.at(0).get<std::int64_t>();
      EXPECT_DOUBLE_EQ(schedule(step), point.at(1).get<double>())
          << each.at("name") << " " << each.at("kwargs") << " warmup " << each.at("warmup") << " total "
          << each.at("total") << " step " << step;
      ++points;
    }
  }
  EXPECT_GT(points, 1500U);
}

TEST(Schedule, PolynomialWithoutDecayPhaseEndsAtItsEnd) {
  const LrSchedule schedule =
      make_lr_schedule({.name = "polynomial", .warmup_steps = 10, .total_steps = 10, .learning_rate = 1e-5});
  EXPECT_DOUBLE_EQ(schedule(9), 0.9);
  EXPECT_DOUBLE_EQ(schedule(10), 1e-7 / 1e-5);
}

std::string hint_of(const ScheduleOptions& options) {
  try {
    (void)make_lr_schedule(options);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kUsage);
    return std::string(error.what()) + " | " + error.hint();
  }
  return "no error";
}

TEST(Schedule, WrongNamesAndKeysAreErrorsWithTheNearestName) {
  EXPECT_EQ(hint_of({.name = "cosin"}),
            "training.lr_scheduler_type: unknown schedule \"cosin\" | did you mean \"cosine\"?");
  EXPECT_NE(hint_of({.name = "xyz"}).find("known: linear, cosine"), std::string::npos);
  EXPECT_EQ(hint_of({.name = "cosine", .kwargs = {{"num_cycle", 1}}}),
            "training.lr_scheduler_kwargs: unknown key \"num_cycle\" for \"cosine\" | did you mean \"num_cycles\"?");
  EXPECT_NE(hint_of({.name = "linear", .kwargs = {{"num_cycles", 1}}}).find("takes no parameters"), std::string::npos);
  EXPECT_NE(hint_of({.name = "cosine", .kwargs = {{"num_cycles", "1"}}}).find("is not a number"), std::string::npos);
  EXPECT_NE(hint_of({.name = "cosine", .kwargs = Json::array()}).find("not a table"), std::string::npos);
}

TEST(Schedule, PolynomialEndMustBeBelowThePeak) {
  EXPECT_NE(
      hint_of({.name = "polynomial", .total_steps = 5, .learning_rate = 1e-7}).find("not below the learning rate"),
      std::string::npos);
}

}  // namespace
}  // namespace dtrain
