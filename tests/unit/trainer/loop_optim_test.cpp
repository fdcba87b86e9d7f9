// What the loop makes of schedules that follow a metric, a divided optimizer, frozen parameters and parameter groups.
#include <csignal>
#include <limits>
#include <set>

#include <ATen/ops/equal.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "core/file.h"
#include "tests/support/temp_folder.h"
#include "tests/unit/trainer/loop_support.h"
#include "trainer/models/safetensors.h"

namespace dtrain::test {
namespace {

using testing::HasSubstr;

constexpr std::int64_t kEmbeddingElements = 240;  // of TinyModel, first in flat_weights()

std::vector<double> learning_rates(const TrainerState& state) {
  std::vector<double> rates;
  for (const OrderedJson& record : state.log_history) {
    if (record.contains("learning_rate")) rates.push_back(record["learning_rate"].get<double>());
  }
  return rates;
}

TrainConfig config_that_follows(const std::string& schedule, const Json& kwargs, const std::filesystem::path& folder) {
  TrainConfig config = tiny_config(folder);
  config.training.max_steps = 18;
  config.training.learning_rate = 0.4;  // so high that the loss on other data rises again
  config.training.lr_scheduler_type = schedule;
  config.training.lr_scheduler_kwargs = kwargs;
  config.training.eval_strategy = "steps";
  config.training.eval_steps = 2;
  return config;
}

// The peer's rule: rate k is what the metrics of the evaluations before step k made of it.
TEST(LoopSchedule, PlateauLowersTheRateAfterEvaluationsThatAreNotBetter) {
  const TempFolder folder;
  const TrainConfig config = config_that_follows(
      "reduce_lr_on_plateau", {{"patience", 0}, {"factor", 0.5}, {"threshold", 0.05}}, folder.path());
  const TinyResult result = train_tiny(config, {.eval_examples = 15});
  std::vector<double> expected;
  double rate = 0.4;
  double best = std::numeric_limits<double>::infinity();
  for (const OrderedJson& record : result.state.log_history) {
    if (record.contains("learning_rate")) expected.push_back(rate);
    if (!record.contains("eval_loss")) continue;
    const auto loss = record["eval_loss"].get<double>();
    if (loss < best * (1 - 0.05)) {
      best = loss;
    } else {
      rate *= 0.5;
    }
  }
  EXPECT_EQ(learning_rates(result.state), expected);
  EXPECT_GE(std::set<double>(expected.begin(), expected.end()).size(), 3U) << "the rate hardly moved";
  EXPECT_EQ(result.state.best_metric.has_value(), true);  // metric_for_best_model is the loss
}

struct Followed {
  std::string schedule;
  Json kwargs;
  std::int64_t stop;
  int ranks;
};

class LoopScheduleResume : public testing::TestWithParam<Followed> {};

TEST_P(LoopScheduleResume, EqualsTheUninterruptedRun) {
  const TempFolder folder;
  TrainConfig config = config_that_follows(GetParam().schedule, GetParam().kwargs, folder.path() / "whole");
  config.training.resume_from_checkpoint = "latest";
  TinyRun run{.world_size = GetParam().ranks, .eval_examples = 15};
  const TinyResult whole = train_tiny(config, run);
  config.training.output_dir = (folder.path() / "parts").string();
  run.signal = [&](int rank, std::int64_t asked) { return rank == 0 && asked == GetParam().stop ? SIGUSR2 : 0; };
  EXPECT_EQ(train_tiny(config, run).state.global_step, GetParam().stop);
  run.signal = {};
  const TinyResult resumed = train_tiny(config, run);
  EXPECT_TRUE(at::equal(resumed.weights, whole.weights));
  EXPECT_EQ(learning_rates(resumed.state), learning_rates(whole.state));
  const std::vector<double> rates = learning_rates(whole.state);
  EXPECT_GE(std::set<double>(rates.begin(), rates.end()).size(), 3U) << "the rate hardly moved";
}

INSTANTIATE_TEST_SUITE_P(
    All, LoopScheduleResume,
    testing::Values(Followed{"reduce_lr_on_plateau", {{"patience", 1}, {"factor", 0.7}, {"threshold", 0.05}}, 7, 1},
                    // With an evaluation due when the signal arrives.
                    Followed{"reduce_lr_on_plateau", {{"patience", 0}, {"factor", 0.7}, {"threshold", 0.05}}, 8, 2},
                    Followed{"greedy", {{"patience", 0}, {"min_lr", 0.01}, {"factor", 0.8}, {"cooldown", 1}}, 9, 2},
                    Followed{"greedy",
                             {{"patience", 0}, {"min_lr", 0.01}, {"factor", 0.8}, {"smooth", true}, {"window_size", 3}},
                             12,
                             1}),
    [](const auto& test) { return fmt::format("{}_step{}", test.param.schedule, test.param.stop); });

TrainConfig config_that_saves(const std::filesystem::path& folder, const std::string& optimizer) {
  TrainConfig config = tiny_config(folder);
  config.training.max_steps = 6;
  config.training.per_device_train_batch_size = 2;
  config.training.optim = optimizer;
  config.training.weight_decay = 0.1;
  config.training.save_strategy = "steps";
  config.training.save_steps = 3;
  return config;
}

TEST(LoopShard, SameWeightsAndSameCheckpointsAsWithout) {
  for (const char* optimizer : {"adamw_torch_fused", "adafactor"}) {
    for (const int ranks : {1, 2, 4}) {
      const TempFolder folder;
      TrainConfig config = config_that_saves(folder.path() / "whole", optimizer);
      const TinyResult whole = train_tiny(config, {.world_size = ranks});
      config.training.output_dir = (folder.path() / "sharded").string();
      config.training.shard_optimizer = true;
      const TinyResult sharded = train_tiny(config, {.world_size = ranks});
      EXPECT_TRUE(at::equal(sharded.weights, whole.weights)) << optimizer << " " << ranks;
      for (const char* step : {"checkpoint-3", "checkpoint-6"}) {
        for (const char* name : {"optimizer.safetensors", "model.safetensors"}) {
          EXPECT_EQ(read_file(folder.path() / "sharded" / step / name),
                    read_file(folder.path() / "whole" / step / name))
              << optimizer << " " << ranks << " " << step << " " << name;
        }
      }
    }
  }
}

TEST(LoopShard, ResumingMaySwitchItOnAndOff) {
  for (const bool first : {true, false}) {
    const TempFolder folder;
    TrainConfig config = config_that_saves(folder.path() / "whole", "adamw_torch_fused");
    const TinyResult whole = train_tiny(config, {.world_size = 2});
    config.training.output_dir = (folder.path() / "parts").string();
    config.training.resume_from_checkpoint = "latest";
    config.training.shard_optimizer = first;
    (void)train_tiny(config,
                     {.world_size = 2, .signal = [](int, std::int64_t asked) { return asked == 4 ? SIGUSR2 : 0; }});
    config.training.shard_optimizer = !first;
    EXPECT_TRUE(at::equal(train_tiny(config, {.world_size = 2}).weights, whole.weights)) << first;
  }
}

std::vector<double> epochs(const TrainerState& state) {
  std::vector<double> result;
  for (const OrderedJson& record : state.log_history) {
    if (record.contains("learning_rate")) result.push_back(record["epoch"].get<double>());
  }
  return result;
}

// Trainer._init_training_state and _run_epoch: the epoch in which the run stopped begins once more, steps are counted
// on.
TEST(LoopResumeOptions, IgnoreDataSkipBeginsTheEpochAgain) {
  const TempFolder folder;
  TrainConfig config = tiny_config(folder.path());
  config.training.max_steps = 11;
  config.training.resume_from_checkpoint = "latest";
  config.training.ignore_data_skip = true;
  const TinyRun run{.examples = 32};  // 4 steps an epoch
  (void)train_tiny(config,
                   {.examples = 32, .signal = [](int, std::int64_t asked) { return asked == 6 ? SIGUSR2 : 0; }});
  const TinyResult resumed = train_tiny(config, run);
  EXPECT_EQ(epochs(resumed.state), std::vector<double>({0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.25, 1.5, 1.75, 2, 2.25}));
  EXPECT_EQ(resumed.state.global_step, 11);
}

std::string error_of(const TrainConfig& config) {
  try {
    (void)train_tiny(config, {.world_size = 2});
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kUsage);
    return std::string(error.what()) + " | " + error.hint();
  }
  return "no error";
}

TEST(LoopFreeze, FrozenParametersKeepTheirBitsAndHaveNoState) {
  const TempFolder folder;
  TrainConfig config = config_that_saves(folder.path(), "adamw_torch_fused");
  config.training.freeze = {"embed*"};
  const at::Tensor start = flat_weights(TinyModel(11));
  const TinyResult result = train_tiny(config, {.world_size = 2});
  const std::int64_t rest = start.numel() - kEmbeddingElements;
  EXPECT_TRUE(at::equal(result.weights.narrow(0, 0, kEmbeddingElements), start.narrow(0, 0, kEmbeddingElements)));
  const at::Tensor moved =
      result.weights.narrow(0, kEmbeddingElements, rest).ne(start.narrow(0, kEmbeddingElements, rest));
  EXPECT_EQ(moved.sum().item<std::int64_t>(), rest);
  std::set<std::string> parameters;
  const SafetensorsFile file(folder.path() / "checkpoint-6" / "optimizer.safetensors");
  for (const std::string& name : file.names()) parameters.insert(name.substr(0, name.rfind('.')));
  EXPECT_EQ(parameters, std::set<std::string>({"classifier.bias", "classifier.weight", "loop"}));
}

TEST(LoopFreeze, WhatLeavesNothingOrMatchesNothingIsAnError) {
  const TempFolder folder;
  TrainConfig config = config_that_saves(folder.path(), "adamw_torch_fused");
  config.training.freeze = {"*"};
  EXPECT_THAT(error_of(config), HasSubstr("training.freeze: every parameter is frozen"));
  config.training.freeze = {"embeding"};
  EXPECT_EQ(
      error_of(config),
      "training.freeze: \"embeding\" matches no parameter | the names are those in model.safetensors, for example "
      "\"embedding\"");
  config.training.freeze = {"classifier.*"};
  config.training.parameter_groups = {{{"pattern", "classifier.*"}, {"learning_rate", 1.0}}};
  EXPECT_THAT(error_of(config), HasSubstr("group 1: \"classifier.*\" matches no parameter"));
}

TEST(LoopGroups, AGroupHasItsOwnRateAndTheLogHasTheBase) {
  const TempFolder folder;
  TrainConfig config = config_that_saves(folder.path(), "adamw_torch_fused");
  config.training.parameter_groups = {{{"pattern", "classifier.*"}, {"learning_rate", 0.0}}};
  config.training.lr_scheduler_type = "constant";
  const at::Tensor start = flat_weights(TinyModel(11));
  const TinyResult result = train_tiny(config, {});
  const std::int64_t rest = start.numel() - kEmbeddingElements;
  EXPECT_TRUE(at::equal(result.weights.narrow(0, kEmbeddingElements, rest), start.narrow(0, kEmbeddingElements, rest)));
  EXPECT_FALSE(at::equal(result.weights, start));
  EXPECT_EQ(learning_rates(result.state), std::vector<double>(6, 0.05));
  // A group of everything with the rate and decay of all changes nothing.
  config.training.parameter_groups.clear();
  config.training.output_dir = (folder.path() / "plain").string();
  const TinyResult plain = train_tiny(config, {});
  config.training.parameter_groups = {{{"pattern", "*"}, {"learning_rate", 0.05}}};
  config.training.learning_rate = 0.7;
  config.training.output_dir = (folder.path() / "grouped").string();
  EXPECT_TRUE(at::equal(train_tiny(config, {}).weights, plain.weights));
}

}  // namespace
}  // namespace dtrain::test
