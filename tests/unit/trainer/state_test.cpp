// trainer_state.json, run.json and the result files against what transformers writes (tests/golden/record_state.py).
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "core/file.h"
#include "tests/support/files.h"
#include "tests/support/temp_folder.h"
#include "trainer/checkpoint/run_json.h"
#include "trainer/checkpoint/trainer_state.h"

namespace dtrain {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

const Json& golden() {
  static const Json json = read_json_file(test::test_data("golden/state.json"));
  return json;
}

// The state that record_state.py builds.
TrainerState example_state() {
  TrainerState state;
  state.epoch = 1.5;
  state.max_steps = 60;
  state.logging_steps = 10;
  state.eval_steps = 15;
  state.save_steps = 15;
  state.train_batch_size = 8;
  state.num_train_epochs = 3;
  state.total_flos = 1234567890.0;
  state.best_metric = 0.8125;
  state.best_global_step = 15;
  state.best_model_checkpoint = "results/checkpoint-15";
  state.control.should_save = true;
  state.global_step = 10;
  state.add_log({{"loss", 0.6931471824645996}, {"grad_norm", 2.125}, {"learning_rate", 4.2e-05}, {"epoch", 0.5}});
  state.global_step = 15;
  state.add_log({{"eval_loss", 0.5}, {"eval_accuracy", 0.8125}, {"eval_runtime", 1.25}, {"epoch", 0.75}});
  state.global_step = 30;
  return state;
}

TEST(TrainerState, IsTheFileOfTransformersByteForByte) {
  EXPECT_EQ(trainer_state_json(example_state()), golden().at("trainer_state").get<std::string>());
}

TEST(TrainerState, StartsAsTransformersDoes) {
  const Json json = Json::parse(trainer_state_json({}));
  EXPECT_EQ(json.at("logging_steps"), 500);
  EXPECT_TRUE(json.at("best_metric").is_null());
  EXPECT_TRUE(json.at("train_batch_size").is_null());
  EXPECT_EQ(json.at("log_history"), Json::array());
}

TEST(TrainerState, ReadsBackWhatItWrote) {
  const test::TempFolder folder;
  const fs::path path = folder.path() / "trainer_state.json";
  write_trainer_state(path, example_state());
  const TrainerState state = read_trainer_state(path);
  EXPECT_EQ(state.global_step, 30);
  EXPECT_EQ(state.best_metric, 0.8125);
  EXPECT_EQ(state.best_model_checkpoint, "results/checkpoint-15");
  ASSERT_EQ(state.log_history.size(), 2U);
  EXPECT_EQ(state.log_history[0].back(), 10);  // the step is the last key
  TrainerState again = state;
  again.control = example_state().control;
  EXPECT_EQ(trainer_state_json(again), trainer_state_json(example_state()));
}

TEST(TrainerState, NumbersThatJsonDoesNotHaveAreNull) {
  TrainerState state;
  state.add_log({{"grad_norm", std::numeric_limits<double>::infinity()}});
  EXPECT_TRUE(Json::parse(trainer_state_json(state)).at("log_history")[0].at("grad_norm").is_null());
}

TEST(TrainerState, DamageIsAnErrorWithFileAndKey) {
  const test::TempFolder folder;
  const auto error_of = [&](const std::string& text) {
    const fs::path path = folder.write("trainer_state.json", text);
    try {
      (void)read_trainer_state(path);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kData);
      EXPECT_THAT(error.what(), HasSubstr("trainer_state.json"));
      return std::string(error.what());
    }
    return std::string("no error");
  };
  EXPECT_EQ(error_of("{}"), "no error");
  EXPECT_EQ(error_of(R"({"unknown": 1, "epoch": 2})"), "no error");
  EXPECT_NE(error_of("{"), "no error");
  EXPECT_THAT(error_of("[]"), HasSubstr("not a JSON object"));
  EXPECT_THAT(error_of(R"({"global_step": "3"})"), HasSubstr("\"global_step\" is not a whole number"));
  EXPECT_THAT(error_of(R"({"global_step": -3})"), HasSubstr("\"global_step\" is not 0 or more"));
  EXPECT_THAT(error_of(R"({"global_step": 1.5})"), HasSubstr("\"global_step\""));
  EXPECT_THAT(error_of(R"({"best_metric": true})"), HasSubstr("\"best_metric\" is not a number"));
  EXPECT_THAT(error_of(R"({"log_history": {}})"), HasSubstr("\"log_history\" is not a list"));
  EXPECT_THAT(error_of(R"({"log_history": [1]})"), HasSubstr("a list of objects"));
}

TEST(RunRecord, AnUpdateDoesNotTakeBackThatTheRunHasFailed) {
  const test::TempFolder folder;
  update_run_record(folder.path(), {.step = 3, .checkpoint = "checkpoint-3"});
  EXPECT_EQ(read_run_record(folder.path())->state, "running");
  write_run_record(folder.path(), {.state = "failed", .step = 4, .exit = 70, .reason = "why", .suspects = {"rank 1"}});
  update_run_record(folder.path(), {.step = 5, .checkpoint = "checkpoint-5"});
  const RunRecord record = read_run_record(folder.path()).value();
  EXPECT_EQ(record.state, "failed");
  EXPECT_EQ(record.exit, 70);
  EXPECT_EQ(record.reason, "why");
  EXPECT_EQ(record.suspects, std::vector<std::string>{"rank 1"});
  EXPECT_EQ(record.step, 5);
  EXPECT_EQ(record.checkpoint, "checkpoint-5");
  // What cannot be read is replaced.
  replace_file(folder.path() / "run.json", "{");
  update_run_record(folder.path(), {.step = 6});
  EXPECT_EQ(read_run_record(folder.path())->step, 6);
}

TEST(RunRecord, SurvivesWritingAndReading) {
  const test::TempFolder folder;
  EXPECT_FALSE(read_run_record(folder.path()));
  write_run_record(folder.path(), {.state = "failed",
                                   .step = 7,
                                   .checkpoint = "checkpoint-5",
                                   .best_step = 5,
                                   .best_metric = 0.25,
                                   .best_checkpoint = "checkpoint-5",
                                   .exit = 74,
                                   .reason = "disk \"full\"\xff",
                                   .suspects = {"rank 1 on b"},
                                   .hub = "uploaded"});
  const RunRecord record = read_run_record(folder.path()).value();
  EXPECT_EQ(record.state, "failed");
  EXPECT_EQ(record.step, 7);
  EXPECT_EQ(record.checkpoint, "checkpoint-5");
  EXPECT_EQ(record.best_step, 5);
  EXPECT_EQ(record.best_metric, 0.25);
  EXPECT_EQ(record.exit, 74);
  EXPECT_THAT(record.reason, HasSubstr("disk \"full\""));
  EXPECT_EQ(record.suspects, (std::vector<std::string>{"rank 1 on b"}));
  EXPECT_EQ(record.hub, "uploaded");
  write_run_record(folder.path(), {});
  EXPECT_FALSE(read_run_record(folder.path())->exit);
  folder.write("run.json", R"({"step": []})");
  EXPECT_THROW((void)read_run_record(folder.path()), Error);
}

TEST(Results, AreTheFilesOfTransformers) {
  const test::TempFolder folder;
  write_results(folder.path(), "train", {{"train_loss", 0.25}, {"epoch", 3.0}, {"train_runtime", 12.5}});
  write_results(folder.path(), "eval", {{"eval_accuracy", 0.75}, {"epoch", 2.0}});
  for (const auto& [name, text] : golden().at("results").items()) {
    EXPECT_EQ(read_file(folder.path() / name), text.get<std::string>()) << name;
  }
}

}  // namespace
}  // namespace dtrain
