// The default flow against transformers' (tests/golden/record_state.py), and what the other callbacks write.
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/file.h"
#include "core/log.h"
#include "tests/support/files.h"
#include "tests/support/temp_folder.h"
#include "trainer/callbacks/default_flow.h"
#include "trainer/callbacks/log_printer.h"
#include "trainer/callbacks/log_writer.h"
#include "trainer/callbacks/printer.h"
#include "trainer/callbacks/progress_bar.h"
#include "trainer/callbacks/straggler_warning.h"

namespace dtrain {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

TEST(DefaultFlow, DecidesAsTransformersDoes) {
  const Json golden = read_json_file(test::test_data("golden/state.json"));
  for (const Json& each : golden.at("flows")) {
    DefaultFlow flow({.logging_strategy = each.at("logging_strategy").get<std::string>(),
                      .eval_strategy = each.at("eval_strategy").get<std::string>(),
                      .save_strategy = each.at("save_strategy").get<std::string>(),
                      .logging_first_step = each.at("logging_first_step").get<bool>(),
                      .eval_delay = each.at("eval_delay").get<double>()});
    TrainerState state;
    state.max_steps = each.at("max_steps").get<std::int64_t>();
    state.logging_steps = each.at("steps")[0].get<std::int64_t>();
    state.eval_steps = each.at("steps")[1].get<std::int64_t>();
    state.save_steps = each.at("steps")[2].get<std::int64_t>();
    for (const Json& row : each.at("rows")) {
      ++state.global_step;
      TrainerControl step;
      flow.on_step_end(state, step, {});
      state.epoch = static_cast<double>(state.global_step) / 4;
      TrainerControl epoch;
      flow.on_epoch_end(state, epoch);
      const Json decided = {step.should_log,  step.should_evaluate,  step.should_save, step.should_training_stop,
                            epoch.should_log, epoch.should_evaluate, epoch.should_save};
      EXPECT_EQ(decided, row) << each << " step " << state.global_step;
    }
  }
}

TEST(Printer, WritesTheLinesOfTransformersPrinter) {
  const Json golden = read_json_file(test::test_data("golden/events.json"));
  for (const Json& each : golden.at("printed")) {
    OrderedJson record;
    for (const Json& item : each.at("record")) {
      const auto text = item[1].get<std::string>();
      record[item[0].get<std::string>()] =
          text == "nan" ? OrderedJson(std::numeric_limits<double>::quiet_NaN()) : OrderedJson::parse(text);
    }
    record["step"] = 3;
    EXPECT_EQ(python_line(record) + "\n", each.at("line").get<std::string>());
  }
  EXPECT_EQ(python_line({{"a", true}, {"b", nullptr}, {"c", "text"}}), "{'a': True, 'b': None, 'c': 'text'}");
}

TEST(DefaultFlow, ClearsTheFlagsOfTheStepBefore) {
  DefaultFlow flow({});
  TrainerControl control{.should_epoch_stop = true, .should_save = true, .should_evaluate = true, .should_log = true};
  flow.on_step_begin({}, control);
  EXPECT_FALSE(control.should_log || control.should_evaluate || control.should_save);
  EXPECT_TRUE(control.should_epoch_stop);
  flow.on_epoch_begin({}, control);
  EXPECT_FALSE(control.should_epoch_stop);
}

TEST(CallbackList, CallsItsMembersInOrder) {
  struct Probe final : Callback {
    Probe(std::string name, std::string& calls) : name_(std::move(name)), calls_(calls) {}
    void on_train_begin(const TrainerState&, TrainerControl&) override { calls_ += name_ + "1 "; }
    void on_step_end(const TrainerState&, TrainerControl& control, const StepReport& report) override {
      calls_ += name_ + std::to_string(report.samples) + " ";
      control.should_log = true;
    }
    void on_save(const TrainerState&, TrainerControl&, const fs::path& path) override {
      calls_ += name_ + path.string() + " ";
    }
    std::string name_;
    std::string& calls_;
  };
  std::string calls;
  CallbackList list;
  list.add(std::make_shared<Probe>("a", calls));
  list.add(std::make_shared<Probe>("b", calls));
  TrainerState state;
  list.on_train_begin(state, state.control);
  list.on_step_end(state, state.control, {.samples = 4});
  list.on_save(state, state.control, "c");
  EXPECT_EQ(calls, "a1 b1 a4 b4 ac bc ");
  EXPECT_TRUE(state.control.should_log);
}

class LogFile : public testing::Test {
 protected:
  void log(LogWriter& writer, std::int64_t step, const OrderedJson& record) {
    state_.global_step = step;
    writer.on_log(state_, state_.control, state_.add_log(record));
  }
  // From a checkpoint of that step whose history has so many records of it.
  void went_on_from(std::int64_t step, int records) {
    state_.global_step = step;
    for (; records > 0; --records) state_.log_history.push_back({{"step", step}});
  }
  // What such a run keeps of the file's text.
  std::string kept_of(const std::string& text, std::int64_t step, int records) {
    folder_.write("log.jsonl", text);
    went_on_from(step, records);
    LogWriter(path_).on_train_begin(state_, state_.control);
    return read_file(path_);
  }
  test::TempFolder folder_;
  fs::path path_ = folder_.path() / "log.jsonl";
  TrainerState state_;
};

TEST_F(LogFile, OneRecordALineWithTheStepFirst) {
  LogWriter writer(path_);
  writer.on_train_begin(state_, state_.control);
  log(writer, 1,
      {{"loss", 0.6931471824645996}, {"grad_norm", std::numeric_limits<double>::quiet_NaN()}, {"epoch", 0.5}});
  EXPECT_EQ(read_file(path_), "{\"step\":1,\"loss\":0.6931471824645996,\"grad_norm\":null,\"epoch\":0.5}\n");
  log(writer, 2, {{"loss", 1}});
  writer.on_train_end(state_, state_.control);
  EXPECT_THAT(read_file(path_), testing::EndsWith("\n{\"step\":2,\"loss\":1}\n"));
}

TEST_F(LogFile, TokensAndSecondsAreSumsSinceTheRecordBefore) {
  LogWriter writer(path_);
  writer.on_train_begin(state_, state_.control);
  StepReport report{.tokens = 10, .input_elements = 16, .spans = {.data = 0.5, .forward = 1, .backward = 2}};
  writer.on_step_end(state_, state_.control, report);
  writer.on_step_end(state_, state_.control, report);
  log(writer, 2, {{"loss", 1}});
  report.spans = {.reduce = 0.25, .optimizer = 4};
  writer.on_step_end(state_, state_.control, report);
  log(writer, 3, {{"loss", 1}});
  log(writer, 3, {{"eval_loss", 1}});
  EXPECT_EQ(read_file(path_), R"({"step":2,"loss":1,"tokens":20,"input_elements":32,"seconds":)"
                              R"({"data":1.0,"forward":2.0,"backward":4.0,"reduce":0.0,"optimizer":0.0}})"
                              "\n"
                              R"({"step":3,"loss":1,"tokens":10,"input_elements":16,"seconds":)"
                              R"({"data":0.0,"forward":0.0,"backward":0.0,"reduce":0.25,"optimizer":4.0}})"
                              "\n"
                              R"({"step":3,"eval_loss":1})"
                              "\n");
}

TEST_F(LogFile, AResumedRunContinuesItWithoutRepeatingSteps) {
  folder_.write(
      "log.jsonl",
      "{\"step\":1,\"loss\":3}\n{\"step\":2,\"loss\":2}\nnonsense\n{\"step\":3,\"loss\":1}\n{\"step\":4,\"lo");
  went_on_from(2, 1);
  LogWriter writer(path_);
  writer.on_train_begin(state_, state_.control);
  log(writer, 3, {{"loss", 7}});
  EXPECT_EQ(read_file(path_), "{\"step\":1,\"loss\":3}\n{\"step\":2,\"loss\":2}\n{\"step\":3,\"loss\":7}\n");
}

// The checkpoint of a run that was told to stop is from before the evaluation of its step.
TEST_F(LogFile, AnEvaluationThatTheCheckpointDoesNotKnowComesAgain) {
  const std::string known = "{\"step\":1,\"loss\":3}\n{\"step\":2,\"loss\":2}\n";
  EXPECT_EQ(kept_of(known + "{\"step\":2,\"eval_loss\":5}\n{\"step\":3,\"loss\":1}\n", 2, 1), known);
}

TEST_F(LogFile, AnEvaluationThatTheCheckpointKnowsStays) {
  const std::string known = "{\"step\":2,\"loss\":2}\n{\"step\":2,\"eval_loss\":5}\n";
  EXPECT_EQ(kept_of(known + "{\"step\":2,\"train_runtime\":9}\n", 2, 2), known);
}

TEST_F(LogFile, AFreshRunStartsItAnew) {
  folder_.write("log.jsonl", "{\"step\":0,\"loss\":3}\n");
  LogWriter writer(path_);
  writer.on_train_begin(state_, state_.control);
  EXPECT_EQ(read_file(path_), "");
}

TEST_F(LogFile, OtherRanksWriteNothing) {
  state_.is_world_process_zero = false;
  LogWriter writer(path_);
  writer.on_train_begin(state_, state_.control);
  log(writer, 1, {{"loss", 1}});
  writer.on_train_end(state_, state_.control);
  EXPECT_FALSE(fs::exists(path_));
}

TEST(LogLine, ForTrainingEvaluationAndTheEnd) {
  TrainerState state;
  state.global_step = 50;
  state.max_steps = 125;
  EXPECT_EQ(
      log_line(state,
               {{"loss", 0.61234}, {"grad_norm", 2.134}, {"learning_rate", 4.2e-05}, {"epoch", 0.4}, {"step", 50}},
               5.3),
      "step 50/125 loss 0.6123 grad_norm 2.13 lr 4.2e-05 epoch 0.40 | 5.3 samples/s");
  EXPECT_EQ(log_line(state,
                     {{"eval_loss", 0.43119},
                      {"eval_accuracy", 0.833},
                      {"eval_runtime", 2.51},
                      {"eval_samples_per_second", 40.1},
                      {"eval_steps_per_second", 3.0},
                      {"epoch", 1.0}},
                     0),
            "step 50/125 eval_loss 0.4312 eval_accuracy 0.8330 eval_runtime 2.5s epoch 1.00 | 40.1 samples/s");
  EXPECT_EQ(log_line(state, {{"loss", 0.0000123}, {"grad_norm", nullptr}}, 0),
            "step 50/125 loss 1.23e-05 grad_norm nan");
}

TEST(ResultsTable, HasARowPerEvaluationAndMarksTheBest) {
  TrainerState state;
  EXPECT_EQ(results_table(state), "");
  state.global_step = 63;
  state.add_log({{"loss", 0.5321}, {"epoch", 1.0}});
  state.add_log(
      {{"eval_loss", 0.441}, {"eval_accuracy", 0.833}, {"eval_f1", 0.8328}, {"eval_runtime", 1.5}, {"epoch", 1.0}});
  state.global_step = 126;
  state.add_log({{"loss", 0.25}, {"epoch", 2.0}});
  state.add_log(
      {{"eval_loss", 0.5}, {"eval_accuracy", 0.82}, {"eval_f1", 0.81}, {"eval_runtime", 1.5}, {"epoch", 2.0}});
  state.best_global_step = 63;
  EXPECT_EQ(results_table(state),
            "  step  epoch  train loss  eval loss  accuracy      f1\n"
            "    63   1.00      0.5321     0.4410    0.8330  0.8328  best\n"
            "   126   2.00      0.2500     0.5000    0.8200  0.8100");
}

TEST(ProgressText, ShowsWhatIsKnown) {
  EXPECT_EQ(progress_text({.label = "training",
                           .done = 50,
                           .total = 125,
                           .per_second = 2.314,
                           .loss = 0.61234,
                           .learning_rate = 4.2e-5}),
            "training    40% |########            | 50/125  loss 0.6123  lr 4.2e-05  2.31 it/s  left 0:32");
  EXPECT_EQ(progress_text({.label = "evaluating", .done = 3, .total = 3, .per_second = 0.5}),
            "evaluating 100% |####################| 3/3  2.00 s/it  left 0:00");
  EXPECT_EQ(progress_text({.label = "training", .done = 0, .total = 0}), "training     0% |                    | 0/0");
}

TEST(FormatDuration, HasHoursOnlyWhenNeeded) {
  EXPECT_EQ(format_duration(0.4), "0:00");
  EXPECT_EQ(format_duration(59.6), "1:00");
  EXPECT_EQ(format_duration(3599), "59:59");
  EXPECT_EQ(format_duration(3661), "1:01:01");
  EXPECT_EQ(format_duration(std::numeric_limits<double>::infinity()), "277777:46:40");
}

struct Bar {
  explicit Bar(bool terminal, double seconds = 0)
      : bar({.terminal = terminal,
             .redraw_seconds = seconds,
             .line_seconds = seconds,
             .write = [this](std::string_view piece) { text += piece; }}) {
    state.max_steps = 2;
  }
  void step(double loss) {
    ++state.global_step;
    bar.on_step_end(state, state.control, {.loss = loss, .learning_rate = 1e-3});
  }
  std::string text;
  TrainerState state;
  ProgressBar bar;
};

TEST(ProgressBar, OnATerminalTheLineIsRedrawnAndLogLinesStandAboveIt) {
  Bar bar(true);
  bar.bar.on_train_begin(bar.state, bar.state.control);
  bar.step(0.5);
  EXPECT_THAT(bar.text, HasSubstr("\rtraining    50% |##########          | 1/2  loss 0.5000  lr 0.001"));
  EXPECT_EQ(bar.text.find('\n'), std::string::npos);
  bar.text.clear();
  testing::internal::CaptureStderr();
  log::error("hello");
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("hello"));
  EXPECT_THAT(bar.text, testing::StartsWith("\r\x1b[Ktraining    50%"));  // hidden before, drawn again after
  bar.step(0.25);
  bar.bar.on_train_end(bar.state, bar.state.control);
  EXPECT_THAT(bar.text, testing::EndsWith("\n"));
  bar.text.clear();
  testing::internal::CaptureStderr();
  log::error("after");
  testing::internal::GetCapturedStderr();
  EXPECT_EQ(bar.text, "");
}

TEST(ProgressBar, ElsewhereItWritesWholeLinesWithoutControlCharacters) {
  Bar bar(false);
  bar.bar.on_train_begin(bar.state, bar.state.control);
  bar.step(std::numeric_limits<double>::quiet_NaN());
  bar.bar.on_log(bar.state, bar.state.control, {{"loss", 0.75}});
  bar.step(std::numeric_limits<double>::quiet_NaN());
  bar.bar.on_prediction_step(bar.state, bar.state.control, 1, 4);
  bar.bar.on_train_end(bar.state, bar.state.control);
  EXPECT_EQ(bar.text.find_first_of("\r\x1b"), std::string::npos);
  EXPECT_THAT(bar.text, HasSubstr("| 1/2  lr 0.001"));
  EXPECT_THAT(bar.text, HasSubstr("| 2/2  loss 0.7500  lr 0.001"));
  EXPECT_THAT(bar.text, HasSubstr("evaluating  25% |#####               | 1/4"));
  EXPECT_THAT(bar.text, testing::EndsWith("\n"));
}

TEST(ProgressBar, IsQuietBetweenItsIntervalsAndOnOtherRanks) {
  Bar bar(false, 1e9);
  bar.bar.on_train_begin(bar.state, bar.state.control);
  bar.step(1);
  EXPECT_EQ(bar.text, "");
  Bar other(true);
  other.state.is_world_process_zero = false;
  other.bar.on_train_begin(other.state, other.state.control);
  other.step(1);
  other.bar.on_prediction_step(other.state, other.state.control, 1, 4);
  EXPECT_EQ(other.text, "");
}

// Rank 1 takes `factor` times as long as the others from step `from` to `to`; the step at which it is named, 0 for
// never.
int step_named(double factor, int from, int to) {
  StragglerRule rule;
  for (int step = 1; step <= 200; ++step) {
    const float usual = step % 10 == 0 ? 0.020F : 0.010F;
    const bool slow = step >= from && step < to;
    const std::vector<float> seconds = {usual, slow ? usual * static_cast<float>(factor) : usual, 0.011F, 0.009F};
    if (const auto found = rule.add(seconds)) {
      EXPECT_EQ(found->rank, 1);
      EXPECT_NEAR(found->seconds, factor * 0.01, 1e-6);
      EXPECT_FALSE(rule.add(seconds));
      return step;
    }
  }
  return 0;
}

TEST(StragglerRule, NamesARankThreeTimesSlowerWithin50Steps) {
  EXPECT_EQ(step_named(3, 1, 1000), 30);
  for (int from = 1; from < 30; ++from) EXPECT_LE(step_named(3, from, 1000), from + 49) << from;
}

TEST(StragglerRule, NamesNobodyForASlowDozenOrALittleSlowness) {
  for (int from = 1; from < 40; ++from) EXPECT_EQ(step_named(10, from, from + 12), 0) << from;
  EXPECT_EQ(step_named(1.9, 1, 1000), 0);
  StragglerRule rule;
  for (int step = 0; step < 100; ++step) {
    EXPECT_FALSE(rule.add(std::vector<float>{0.0001F, 0.0009F}));  // a ninefold nothing
    EXPECT_FALSE(StragglerRule().add(std::vector<float>{0.1F}));
  }
}

TEST(StragglerRule, NamesARankOnce) {
  StragglerRule rule;
  int named = 0;
  for (int step = 0; step < 500; ++step) named += rule.add(std::vector<float>{0.01F, 0.05F}) ? 1 : 0;
  EXPECT_EQ(named, 1);
}

}  // namespace
}  // namespace dtrain
