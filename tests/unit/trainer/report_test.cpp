// Scales, thinning and paths of the report's charts, and the reading of logs. The page itself: test_report.py.
#include <cmath>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "trainer/report/chart.h"
#include "trainer/report/html.h"
#include "trainer/report/report_page.h"

namespace dtrain {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

std::vector<std::string> texts(const Axis& axis) {
  std::vector<std::string> found;
  for (const Axis::Tick& tick : axis.ticks) found.push_back(tick.text);
  return found;
}

TEST(ValueAxis, TicksAreRoundAndHoldAllValues) {
  const Axis axis = value_axis(std::vector<double>{0.6931, 0.512, 0.61}, false);
  EXPECT_THAT(texts(axis), ElementsAre("0.50", "0.55", "0.60", "0.65", "0.70"));
  EXPECT_DOUBLE_EQ(axis.low, 0.5);
  EXPECT_DOUBLE_EQ(axis.high, 0.7);
  EXPECT_NEAR(axis.position(0.6), 0.5, 1e-12);
  EXPECT_THAT(texts(value_axis(std::vector<double>{5e-5, 1e-6}, true)), ElementsAre("0", "2e-05", "4e-05", "6e-05"));
  EXPECT_THAT(texts(value_axis(std::vector<double>{0, 41000}, true)), ElementsAre("0", "20k", "40k", "60k"));
  EXPECT_THAT(texts(value_axis(std::vector<double>{-3, 4}, false)), ElementsAre("-4", "-2", "0", "2", "4"));
}

TEST(ValueAxis, ConstantsSinglesAndNothing) {
  const Axis constant = value_axis(std::vector<double>{2.5, 2.5, kNan}, false);
  EXPECT_LT(constant.low, 2.5);
  EXPECT_GT(constant.high, 2.5);
  EXPECT_GE(constant.ticks.size(), 2U);
  const Axis zero = value_axis(std::vector<double>{0}, true);
  EXPECT_EQ(zero.low, 0);
  EXPECT_GT(zero.high, 0);
  for (const std::vector<double>& none : {std::vector<double>{}, {kNan, kNan}, {INFINITY}}) {
    const Axis axis = value_axis(none, false);
    EXPECT_EQ(axis.low, 0);
    EXPECT_EQ(axis.high, 1);
  }
}

TEST(ValueAxis, NeverLoopsOrDividesByZero) {
  for (const double size : {1e-300, 1e-12, 1.0, 1e15, 1e17, 1e299}) {
    for (const std::vector<double>& values :
         {std::vector<double>{size}, {-size, size}, {size, size * (1 + 1e-15)}, {0, size}}) {
      const Axis axis = value_axis(values, false);
      EXPECT_LT(axis.low, axis.high) << size;
      EXPECT_GE(axis.ticks.size(), 1U) << size;
      EXPECT_LE(axis.ticks.size(), 12U) << size;
      for (const double value : values) EXPECT_TRUE(std::isfinite(axis.position(value))) << size;
    }
  }
}

TEST(SpreadAxis, IsLogarithmicOnlyForOutliers) {
  const Axis spread = spread_axis(std::vector<double>{0.5, 0.6, 0.7, 900}, false);
  EXPECT_TRUE(spread.logarithmic);
  EXPECT_THAT(texts(spread), ElementsAre("0.1", "1", "10", "100", "1k"));
  EXPECT_NEAR(spread.position(10), 0.5, 1e-12);
  EXPECT_FALSE(spread_axis(std::vector<double>{0.5, 0.6, 0.7, 9}, false).logarithmic);
  EXPECT_FALSE(spread_axis(std::vector<double>{0, 0.6, 0.7, 900}, false).logarithmic);
}

TEST(StepAxis, WholeSteps) {
  EXPECT_THAT(texts(step_axis(0, 30)), ElementsAre("0", "10", "20", "30"));
  EXPECT_THAT(texts(step_axis(1, 3)), ElementsAre("1", "2", "3"));
  EXPECT_THAT(texts(step_axis(0, 1000000)), ElementsAre("0", "200k", "400k", "600k", "800k", "1000k"));
  const Axis single = step_axis(7, 7);
  EXPECT_THAT(texts(single), ElementsAre("7"));
  EXPECT_EQ(single.position(7), 0.5);
}

TEST(SampleForDisplay, KeepsEndsSpikesAndGaps) {
  std::vector<double> values(100000, 1.0);
  values[31234] = 50;
  values[77777] = -50;
  values[50001] = kNan;
  const std::vector<std::size_t> kept = sample_for_display(values, 1000);
  EXPECT_LE(kept.size(), 1002U);
  EXPECT_TRUE(std::is_sorted(kept.begin(), kept.end()));
  for (const std::size_t wanted : {0U, 31234U, 50001U, 77777U, 99999U}) EXPECT_THAT(kept, testing::Contains(wanted));
  EXPECT_THAT(sample_for_display(std::vector<double>{3, 1, 2}, 3), ElementsAre(0, 1, 2));
  EXPECT_TRUE(sample_for_display({}, 3).empty());
}

TEST(MeansOf, LeavesGapsOut) {
  const Series means = means_of({.name = "a", .steps = {1, 2, 3, 4}, .values = {1, kNan, kNan, kNan}}, 2);
  EXPECT_THAT(means.steps, ElementsAre(2, 4));
  EXPECT_EQ(means.values[0], 1);
  EXPECT_TRUE(std::isnan(means.values[1]));
}

TEST(Path, BreaksAtGapsAndShowsLonelyPoints) {
  const Axis steps{.low = 0, .high = 10, .ticks = {}};
  const Axis values{.low = 0, .high = 2, .ticks = {}};
  EXPECT_EQ(path_of({.name = "a", .steps = {0, 5, 10}, .values = {0, 1, 2}}, steps, values), "M0 1000L500 500L1000 0");
  EXPECT_EQ(path_of({.name = "a", .steps = {0, 1, 2, 3, 4}, .values = {0, kNan, 2, kNan, INFINITY}}, steps, values),
            "M0 1000h0M200 0h0");
  EXPECT_EQ(path_of({.name = "a", .steps = {5}, .values = {1}}, steps, values), "M500 500h0");
}

TEST(Html, EscapesWhatCouldLeaveATextOrAnAttribute) {
  EXPECT_EQ(escape_html("<script a=\"b\" c='d'>&"), "&lt;script a=&quot;b&quot; c=&#39;d&#39;&gt;&amp;");
  EXPECT_EQ(escape_html(std::string("a\0\x1B\x7F\xFF", 5)), "a\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");
  EXPECT_EQ(escape_html("ä\n"), "ä\n");
}

TEST(Html, NumbersForPeople) {
  EXPECT_EQ(number_text(0.693147), "0.69315");
  EXPECT_EQ(number_text(1234567), "1,234,567");
  EXPECT_EQ(number_text(-12345), "-12,345");
  EXPECT_EQ(number_text(2.5e-5), "2.5e-05");
  EXPECT_EQ(number_text(kNan), "not a number");
  EXPECT_EQ(number_text(-INFINITY), "-infinite");
  EXPECT_EQ(count_text(450000), "450,000");
  EXPECT_EQ(exact_text(0.6931471824645996), "0.6931471824645996");
}

TEST(RunLog, TakesRecordsApart) {
  const RunLog log = parse_run_log(
      "{\"step\":1,\"loss\":0.5,\"epoch\":0.1,\"seconds\":{\"data\":0.25}}\n"
      "{\"step\":2,\"loss\":null,\"epoch\":0.2}\n"
      "{\"step\":2,\"eval_loss\":0.75,\"epoch\":0.2}\n"
      "{\"step\":2,\"eval_other_f1\":0.5}\n"
      "no json\n"
      "{\"loss\":1}\n"
      "{\"step\":2,\"train_runtime\":9.5}\n"
      "{\"step\":3,\"lo",
      "log.jsonl");
  ASSERT_NE(log.find("loss"), nullptr);
  EXPECT_THAT(log.find("loss")->steps, ElementsAre(1, 2));
  EXPECT_TRUE(std::isnan(log.find("loss")->values[1]));
  EXPECT_THAT(log.find("seconds.data")->values, ElementsAre(0.25));
  ASSERT_EQ(log.evaluations.size(), 1U);
  EXPECT_EQ(log.evaluations[0].values.at("eval_loss"), 0.75);
  EXPECT_EQ(log.evaluations[0].values.at("eval_other_f1"), 0.5);
  EXPECT_EQ(log.summary.at("train_runtime"), 9.5);
  EXPECT_THAT(log.notes, ElementsAre("2 lines of log.jsonl cannot be read and are left out, the first is line 5",
                                     HasSubstr("the last line of log.jsonl is cut short")));
}

TEST(RunLog, HostileNumbersAreGapsOrZero) {
  const RunLog log = parse_run_log(
      "{\"step\":5,\"loss\":1e308}\n{\"step\":1,\"loss\":1e-320}\n{\"step\":1e999,\"loss\":1}\n{\"step\":\"x\","
      "\"loss\":1}\n",
      "log.jsonl");
  EXPECT_THAT(log.find("loss")->steps, ElementsAre(1, 5));
  EXPECT_EQ(log.find("loss")->values[0], 0);
  EXPECT_TRUE(std::isnan(log.find("loss")->values[1]));
  EXPECT_EQ(log.notes.size(), 1U);
}

TEST(Report, OfNothingIsAPageThatSaysSo) {
  RunFiles run;
  run.folder = "a/<b>";
  const std::string page = report_html(run);
  EXPECT_THAT(page, HasSubstr("<h1>&lt;b&gt;</h1>"));
  EXPECT_THAT(page, HasSubstr("there is no run.json"));
  EXPECT_THAT(page, HasSubstr("the run has not been evaluated"));
  EXPECT_THAT(page, testing::Not(HasSubstr("<figure")));
}

}  // namespace
}  // namespace dtrain
