// Schedules that follow a metric, against torch and transformers (tests/golden/record_optim.py).
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "tests/support/files.h"
#include "tests/support/temp_folder.h"
#include "trainer/optim/learning_rates.h"
#include "trainer/optim/metric_schedule.h"

namespace dtrain {
namespace {

using testing::HasSubstr;

const Json& golden() {
  static const Json json = read_json_file(test::test_data("golden/optim.json"));
  return json.at("metric_schedules");
}

std::vector<double> golden_peaks() { return golden().at("peaks").get<std::vector<double>>(); }

ScheduleOptions options_of(const Json& run) {
  return {
      .name = run.at("name").get<std::string>(), .learning_rate = golden_peaks().front(), .kwargs = run.at("kwargs")};
}

double metric_of(const Json& value) {
  return value.is_null() ? std::numeric_limits<double>::quiet_NaN() : value.get<double>();
}

TEST(MetricSchedule, EqualsTorchAndTransformersAlsoAcrossACheckpoint) {
  const test::TempFolder folder;
  const auto path = folder.path() / "optimizer.safetensors";
  int runs = 0;
  for (const Json& run : golden().at("runs")) {
    const std::string what = fmt::format("{} {}", run.at("name").dump(), run.at("kwargs").dump());
    auto schedule = make_metric_schedule(options_of(run), golden_peaks());
    ASSERT_NE(schedule, nullptr);
    EXPECT_EQ(schedule->rates(), golden_peaks());
    const Json& metrics = run.at("metrics");
    for (std::size_t i = 0; i < metrics.size(); ++i) {
      if (i % 9 == 5) {  // goes on in another process
        write_safetensors(path, schedule->state(), {});
        schedule = make_metric_schedule(options_of(run), golden_peaks());
        schedule->load_state(SafetensorsFile(path));
      }
      schedule->step(metric_of(metrics[i]));
      EXPECT_EQ(schedule->rates(), run.at("rates")[i].get<std::vector<double>>()) << what << " evaluation " << i;
    }
    ++runs;
  }
  EXPECT_GE(runs, 11);
}

TEST(MetricSchedule, AChangedPeakScalesTheRateThatGoesOn) {
  const test::TempFolder folder;
  const auto path = folder.path() / "optimizer.safetensors";
  const ScheduleOptions options{
      .name = "reduce_lr_on_plateau", .learning_rate = 1e-3, .kwargs = {{"patience", 0}, {"factor", 0.5}}};
  const auto before = make_metric_schedule(options, {1e-3, 4e-3});
  for (int i = 0; i < 3; ++i) before->step(1.0);  // the first is better than nothing
  EXPECT_EQ(before->rates(), std::vector<double>({0.25e-3, 1e-3}));
  write_safetensors(path, before->state(), {});
  const auto after = make_metric_schedule(options, {2e-3, 4e-3});
  after->load_state(SafetensorsFile(path));
  EXPECT_EQ(after->rates(), std::vector<double>({0.5e-3, 1e-3}));
  // The state of another schedule is not this one's.
  ScheduleOptions other = options;
  other.name = "greedy";
  other.kwargs = {{"min_lr", 1e-5}};
  const auto greedy = make_metric_schedule(other, {1e-3, 4e-3});
  greedy->load_state(SafetensorsFile(path));
  EXPECT_EQ(greedy->rates(), std::vector<double>({1e-3, 4e-3}));
  try {
    make_metric_schedule(options, {1e-3})->load_state(SafetensorsFile(path));
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kData);
    EXPECT_THAT(error.what(), HasSubstr("2 parameter groups, this run has 1"));
  }
  // A damaged one.
  NamedTensors tensors = before->state();
  tensors.pop_back();
  write_safetensors(path, tensors, {});
  EXPECT_THROW(make_metric_schedule(options, {1e-3, 4e-3})->load_state(SafetensorsFile(path)), Error);
}

std::string message_of(const std::string& name, double rate, const Json& kwargs) {
  try {
    (void)make_metric_schedule({.name = name, .learning_rate = rate, .kwargs = kwargs}, {rate});
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kUsage);
    return std::string(error.what()) + " | " + error.hint();
  }
  return "no error";
}

TEST(MetricSchedule, WhatCouldNeverWorkIsAnError) {
  const std::string plateau = "reduce_lr_on_plateau";
  EXPECT_EQ(message_of("greedy", 5e-5, Json::object()),
            "training.lr_scheduler_kwargs.min_lr: 0.001 is above the learning rate 5e-05, which could never fall | its "
            "default is 0.001; set lr_scheduler_kwargs = { min_lr = 1e-7 } or raise learning_rate");
  EXPECT_EQ(message_of("greedy", 1e-3, Json::object()), "no error");
  EXPECT_THAT(message_of(plateau, 5e-5, {{"min_lr", 1e-4}}), HasSubstr("is above the learning rate 5e-05"));
  EXPECT_THAT(message_of("greedy", 2.0, Json::object()), HasSubstr("max_lr: 1 is below the learning rate 2"));
  EXPECT_THAT(message_of("greedy", 0.1, {{"smooth", true}, {"window_size", 0}}), HasSubstr("window_size"));
  EXPECT_THAT(message_of(plateau, 0.1, {{"factor", 1.0}}), HasSubstr("factor: 1.0 is not between 0 and 1"));
  EXPECT_THAT(message_of(plateau, 0.1, {{"patience", 1.5}}), HasSubstr("whole number"));
  EXPECT_THAT(message_of(plateau, 0.1, {{"patience", -1}}), HasSubstr("at least 0"));
  EXPECT_THAT(message_of(plateau, 0.1, {{"threshold", -1e-4}}), HasSubstr("at least 0"));
  EXPECT_THAT(message_of(plateau, 0.1, {{"mode", "least"}}), HasSubstr("\"least\" is no mode | known: min, max"));
  EXPECT_THAT(message_of(plateau, 0.1, {{"threshold_mode", 1}}), HasSubstr("known: rel, abs"));
  EXPECT_THAT(message_of("greedy", 0.1, {{"smooth", 1}}), HasSubstr("neither true nor false"));
  EXPECT_THAT(message_of(plateau, 0.1, {{"smooth", true}}), HasSubstr("unknown key \"smooth\""));
}

TEST(LearningRates, AScheduleOfUpdatesScalesEachPeak) {
  LearningRates rates({.name = "linear", .warmup_steps = 4, .total_steps = 12, .learning_rate = 0.5}, {0.5, 0.01});
  EXPECT_FALSE(rates.follow_metric());
  EXPECT_EQ(rates.at(0), std::vector<double>({0.0, 0.0}));
  EXPECT_EQ(rates.at(2), std::vector<double>({0.25, 0.005}));
  EXPECT_EQ(rates.at(8), std::vector<double>({0.25, 0.005}));
  EXPECT_TRUE(rates.state().empty());
}

TEST(LearningRates, AMetricMovesThemAndTheUpdatesDoNot) {
  LearningRates rates(
      {.name = "reduce_lr_on_plateau", .learning_rate = 0.5, .kwargs = {{"patience", 0}, {"factor", 0.5}}},
      {0.5, 0.25});
  EXPECT_TRUE(rates.follow_metric());
  EXPECT_EQ(rates.at(0), std::vector<double>({0.5, 0.25}));
  EXPECT_EQ(rates.at(100), std::vector<double>({0.5, 0.25}));
  rates.follow(1.0);
  rates.follow(1.0);
  EXPECT_EQ(rates.at(100), std::vector<double>({0.25, 0.125}));
}

}  // namespace
}  // namespace dtrain
