// The section [sweep]: what it says, and every way to get it wrong.
#include "configs/sweep_settings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "config_support.h"

namespace dtrain {
namespace {

using testing::HasSubstr;
using Kind = SweepParameter::Kind;

std::string file_with(const std::string& sweep) {
  return test::toml_with_eval("") + "\n[metrics]\ncompute = [\"accuracy\"]\n[sweep]\n" + sweep;
}

SweepSettings read(const std::string& sweep, const std::vector<std::string>& overrides = {}) {
  const std::string toml = file_with(sweep);
  return read_sweep_settings(toml, "run.toml", overrides, test::load(toml).config);
}

std::string refusal(const std::string& sweep, const std::vector<std::string>& overrides = {}) {
  try {
    (void)read(sweep, overrides);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kUsage);
    return std::string(error.what()) + " | " + error.hint();
  }
  return "";
}

const char* const kRate = "\"training.learning_rate\" = { low = 1e-5, high = 1e-3, log = true }\n";

TEST(SweepSettings, DefaultsAndParametersInTheOrderOfTheFile) {
  const SweepSettings sweep = read(std::string(kRate) +
                                   "\"training.warmup_steps\" = { low = 0, high = 25, step = 10 }\n"
                                   "\"training.gradient_accumulation_steps\" = { low = 1, high = 4 }\n"
                                   "\"training.optim\" = { values = [\"lion\", \"adamw_torch\"] }\n");
  EXPECT_EQ(sweep.method, "random");
  EXPECT_EQ(sweep.trials, 20);
  EXPECT_EQ(sweep.metric, "eval_loss");
  EXPECT_FALSE(sweep.maximize);
  EXPECT_EQ(sweep.seed, 42);
  ASSERT_EQ(sweep.space.size(), 4U);
  EXPECT_EQ(sweep.space[0].name, "training.learning_rate");
  EXPECT_TRUE(sweep.space[0].kind == Kind::kFloat && sweep.space[0].log && sweep.space[0].step == 0);
  EXPECT_EQ(sweep.space[1].high, 20) << "the last step within the range";
  EXPECT_TRUE(sweep.space[2].kind == Kind::kInteger && sweep.space[2].step == 1);
  EXPECT_EQ(sweep.space[3].values, (std::vector<Json>{"lion", "adamw_torch"}));
}

TEST(SweepSettings, AreReadAndOverridden) {
  const std::string file = std::string(kRate) +
                           "method = \"tpe\"\ntrials = 7\nmetric = \"accuracy\"\nseed = 3\nstartup_trials = 4\n"
                           "training.weight_decay = { values = [0, 0.1] }\n";
  const SweepSettings sweep = read(file, {"sweep.trials=5", "sweep.training.learning_rate={ values = [1e-4] }"});
  EXPECT_EQ(sweep.method, "tpe");
  EXPECT_EQ(sweep.trials, 5);
  EXPECT_TRUE(sweep.maximize) << "more accuracy is better";
  EXPECT_EQ(sweep.startup_trials, 4);
  ASSERT_EQ(sweep.space.size(), 2U);
  EXPECT_EQ(sweep.space[0].name, "training.weight_decay") << "written without quotes";
  EXPECT_EQ(sweep.space[0].values[0].dump(), "0.0") << "as the setting holds it";
  EXPECT_TRUE(sweep.space[1].is_single());
  EXPECT_FALSE(read(file + "direction = \"minimize\"\n").maximize);
  EXPECT_EQ(read(file).identity(), read(file, {"sweep.trials=5"}).identity());
  EXPECT_NE(read(file).identity(), read(file, {"sweep.seed=4"}).identity());
}

TEST(SweepSettings, AGridHasAsManyTrialsAsPoints) {
  const std::string grid =
      "method = \"grid\"\n\"training.seed\" = { values = [1, 2] }\n\"training.warmup_steps\" = { low = 0, high = 20, "
      "step = 10 }\n";
  EXPECT_EQ(read(grid).trials, 6);
  EXPECT_EQ(read(grid + "trials = 4\n").trials, 4);
  EXPECT_EQ(read(grid + "trials = 40\n").trials, 6);
  EXPECT_THAT(refusal(std::string("method = \"grid\"\n") + kRate),
              HasSubstr("a grid needs values, or ranges with a step"));
  EXPECT_THAT(refusal("method = \"grid\"\n\"training.max_steps\" = { low = 1, high = 1000000 }\n"),
              HasSubstr("the grid has more than 100000 points"));
  EXPECT_THAT(refusal("method = \"grid\"\n\"training.learning_rate\" = { low = 0, high = 1, step = 1e-300 }\n"),
              HasSubstr("the grid has more than 100000 points"));
}

TEST(SweepSettings, WhatIsWrongIsSaidWithItsPlace) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "run.toml: [sweep] names no setting to search | write for example"},
      {"methd = \"grid\"", "run.toml:12:1: sweep.methd: unknown key | did you mean \"method\"?"},
      {"method = \"gird\"", "sweep.method: \"gird\" is not a known choice | did you mean \"grid\"?"},
      {"trials = 0", "sweep.trials: needs a whole number, 1 or more"},
      {"trials = 1.5", "sweep.trials: needs a whole number, 1 or more"},
      {"direction = \"up\"", "choose one of: minimize, maximize"},
      {"metric = 3", "sweep.metric: needs the name of a metric"},
      {std::string(kRate) + "metric = \"f1\"",
       "sweep.metric: \"f1\" is not computed; evaluation gives: loss, accuracy"},
      {"\"training.learning_rat\" = { low = 1, high = 2 }", "is no setting | did you mean \"training.learning_rate\"?"},
      {"\"training.output_dir\" = { values = [\"a\"] }", "cannot be searched"},
      {"\"training.learning_rate\" = 3", "needs a table | write { values = [...] }"},
      {"\"training.learning_rate\" = { low = 1 }", "has no high"},
      {"\"training.learning_rate\" = { low = 1, hihg = 2 }", "unknown key \"hihg\" | did you mean \"high\"?"},
      {"\"training.learning_rate\" = { low = 2, high = 1 }", "low is above high"},
      {"\"training.learning_rate\" = { low = 0, high = 1, log = true }", "log needs low above 0"},
      {"\"training.learning_rate\" = { low = 1, high = 2, log = 1 }", "log needs true or false"},
      {"\"training.learning_rate\" = { low = 1, high = 2, step = 0 }", "step must be above 0"},
      {"\"training.learning_rate\" = { low = 1, high = 2, step = 1, log = true }", "log and step exclude each other"},
      {"\"training.learning_rate\" = { low = -1, high = 2 }", "training.learning_rate: -1.0 is out of range"},
      {"\"training.learning_rate\" = { low = nan, high = 2 }", "low needs a number"},
      {"\"training.max_steps\" = { low = 1.5, high = 2 }", "low needs a whole number"},
      {"\"training.optim\" = { low = 1, high = 2 }", "a string has no range | write { values = [...] }"},
      {"\"training.optim\" = { values = [] }", "values needs a list with at least one value"},
      {"\"training.optim\" = { values = [\"lion\", \"lion\"] }", "values contains \"lion\" twice"},
      {"\"training.optim\" = { values = [\"adamm\"] }", "training.optim: \"adamm\" is not a known choice"},
      {"\"training.optim\" = { values = [\"lion\"], low = 1 }", "has values, and with them neither low"},
  };
  for (const auto& [toml, expected] : cases) EXPECT_THAT(refusal(toml + "\n"), HasSubstr(expected)) << toml;
  EXPECT_THAT(refusal(kRate, {"sweep.trials"}), HasSubstr("--set sweep.trials: not of the form sweep.key=value"));
}

TEST(SweepSettings, NeedEvaluationData) {
  const std::string toml = test::toml_with("") + "\n[sweep]\n" + kRate;
  try {
    (void)read_sweep_settings(toml, "run.toml", {}, test::load(toml).config);
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("trials are compared on evaluation data, and there is none"));
  }
}

TEST(SweepSettings, ATrainingWarnsThatItDoesNotSearch) {
  const LoadedConfig loaded = test::load(file_with(kRate));
  ASSERT_EQ(loaded.warnings.size(), 1U);
  EXPECT_THAT(loaded.warnings[0], HasSubstr("[sweep] is for dtrain sweep"));
  EXPECT_EQ(loaded.config.training.learning_rate, 5e-5);
}

}  // namespace
}  // namespace dtrain
