// The same bits whatever the number of ranks, steps of the same examples when a run goes on with another number of
// them, and what a run does about numbers that are not finite and ranks that have drifted.
#include <csignal>

#include <ATen/Parallel.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/equal.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/digest.h"
#include "core/error.h"
#include "tests/support/temp_folder.h"
#include "tests/unit/trainer/loop_support.h"
#include "trainer/replicas.h"

namespace dtrain::test {
namespace {

using testing::HasSubstr;

// What is wrong with the run, with its exit code; "" when nothing is.
std::string refusal(const TrainConfig& config, const TinyRun& run, ExitCode code) {
  try {
    (void)train_tiny(config, run);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    return error.what();
  }
  return "";
}

std::vector<double> losses(const TinyResult& result, const char* key) {
  std::vector<double> found;
  for (const OrderedJson& record : result.state.log_history) {
    if (record.contains(key)) found.push_back(record[key].get<double>());
  }
  return found;
}

TrainConfig reproducible_config(const std::filesystem::path& folder, std::int64_t accumulation) {
  TrainConfig config = tiny_config(folder);
  config.training.reproducible = true;
  config.training.per_device_train_batch_size = 2;
  config.training.gradient_accumulation_steps = accumulation;
  config.training.num_train_epochs = 6;
  config.training.weight_decay = 0.1;
  config.training.max_grad_norm = 0.2;
  config.training.eval_strategy = "steps";
  config.training.eval_steps = 7;
  return config;
}

// 37 examples in steps of 16: the last step of an epoch is filled up.
TEST(LoopReproducible, OneTwoFourAndEightRanksGiveTheSameBits) {
  const TempFolder folder;
  TinyResult one;
  for (const int ranks : {1, 2, 4, 8}) {
    for (const bool sharded : {false, true}) {
      TrainConfig config = reproducible_config(folder.path() / fmt::format("{}{}", ranks, sharded), 8 / ranks);
      config.training.shard_optimizer = sharded;
      const TinyResult result = train_tiny(config, {.world_size = ranks, .examples = 37, .eval_examples = 11});
      if (ranks == 1 && !sharded) one = result;
      EXPECT_TRUE(at::equal(result.weights, one.weights)) << ranks << " ranks";
      for (const char* key : {"loss", "grad_norm", "eval_loss"}) {
        EXPECT_EQ(losses(result, key), losses(one, key)) << key << ", " << ranks << " ranks";
      }
    }
  }
  EXPECT_EQ(one.state.global_step, 18);
  // Without, the order of the sums depends on the ranks: the test above would notice.
  TrainConfig config = reproducible_config(folder.path() / "plain", 2);
  config.training.reproducible = false;
  const TinyResult plain = train_tiny(config, {.world_size = 4, .examples = 37, .eval_examples = 11});
  EXPECT_FALSE(at::equal(plain.weights, one.weights));
  EXPECT_TRUE(at::allclose(plain.weights, one.weights, 1e-3, 1e-4));
}

// Stops in the middle of epochs; from 1 rank to 4, to 2.
TEST(LoopReproducible, ARunMayMoveToOtherRanksWithoutChangingABit) {
  const TempFolder folder;
  TinyRun run{.world_size = 1, .examples = 37, .eval_examples = 11};
  TrainConfig config = reproducible_config(folder.path() / "whole", 8);
  const TinyResult whole = train_tiny(config, run);
  config.training.output_dir = (folder.path() / "parts").string();
  config.training.resume_from_checkpoint = "latest";
  config.training.save_strategy = "steps";
  config.training.save_steps = 100;
  std::int64_t last = 0;
  for (const auto& [ranks, steps] : {std::pair{1, 5}, {4, 3}, {2, 6}}) {
    run.world_size = ranks;
    run.signal = [steps = steps](int, std::int64_t asked) { return asked == steps ? SIGUSR2 : 0; };
    last = train_tiny(config, run).state.global_step;                // the accumulation stays that of one rank
    if (last == 8) config.training.gradient_accumulation_steps = 2;  // what the checkpoint says is as good
  }
  EXPECT_EQ(last, 14);
  run.world_size = 8;
  run.signal = {};
  config.training.gradient_accumulation_steps = 8;  // that of the beginning again
  const TinyResult end = train_tiny(config, run);
  EXPECT_EQ(end.state.global_step, whole.state.global_step);
  EXPECT_TRUE(at::equal(end.weights, whole.weights));
  for (const char* key : {"loss", "eval_loss"}) EXPECT_EQ(losses(end, key), losses(whole, key)) << key;
}

TEST(LoopReproducible, RefusesWhatIsNoTree) {
  const TempFolder folder;
  TrainConfig config = reproducible_config(folder.path(), 2);
  EXPECT_THAT(refusal(config, {.world_size = 3}, ExitCode::kUsage),
              HasSubstr("6 micro-batches = 2 gradient_accumulation_steps x 3 ranks"));
}

TEST(LoopWorldSize, AnotherNumberOfRanksGoesOnWithTheSameSteps) {
  const TempFolder folder;
  TrainConfig config = tiny_config(folder.path() / "whole");
  config.training.per_device_train_batch_size = 2;
  config.training.gradient_accumulation_steps = 4;
  TinyRun run{.world_size = 1, .examples = 37};
  const TinyResult whole = train_tiny(config, run);
  config.training.output_dir = (folder.path() / "parts").string();
  config.training.resume_from_checkpoint = "latest";
  run.signal = [](int, std::int64_t asked) { return asked == 7 ? SIGUSR2 : 0; };
  (void)train_tiny(config, run);
  run.signal = {};
  EXPECT_THAT(refusal(config, {.world_size = 3, .examples = 37}, ExitCode::kUsage),
              HasSubstr("a step of the checkpoint has 8 examples = 2 per device x 4 accumulated x 1 ranks, and 4 x 1 "
                        "micro-batches cannot be divided among 3 ranks"));
  TrainConfig changed = config;
  changed.training.gradient_accumulation_steps = 3;
  EXPECT_THAT(refusal(changed, {.world_size = 2, .examples = 37}, ExitCode::kDisagree),
              HasSubstr("training.gradient_accumulation_steps is 3, was 2"));
  run.world_size = 4;
  const TinyResult resumed = train_tiny(config, run);
  EXPECT_EQ(resumed.state.global_step, whole.state.global_step);
  EXPECT_TRUE(at::allclose(resumed.weights, whole.weights, 1e-4, 1e-5));
}

TEST(LoopWorldSize, WhatDependsOnTheRanksIsRefused) {
  const TempFolder folder;
  for (const bool groups : {false, true}) {
    TrainConfig config = tiny_config(folder.path() / (groups ? "groups" : "drop"));
    config.training.per_device_train_batch_size = 2;
    config.training.gradient_accumulation_steps = 4;
    config.training.dataloader_drop_last = !groups;
    if (groups) config.training.train_sampling_strategy = "group_by_length";
    config.training.resume_from_checkpoint = "latest";
    TinyRun run{.world_size = 1, .examples = 35};
    run.signal = [](int, std::int64_t asked) { return asked == 3 ? SIGUSR2 : 0; };
    (void)train_tiny(config, run);
    run.world_size = 4;
    EXPECT_THAT(refusal(config, run, ExitCode::kUsage),
                HasSubstr(groups ? "the order of train_sampling_strategy" : "an epoch would have 4 steps"));
  }
}

TEST(LoopNotFinite, SkipLeavesTheWeightsOfThatStepAloneEverywhere) {
  for (const int ranks : {1, 2, 4}) {
    const TempFolder folder;
    TrainConfig config = tiny_config(folder.path());
    config.training.per_device_train_batch_size = 8 / ranks;
    config.training.save_strategy = "steps";
    config.training.save_steps = 1;
    config.training.num_train_epochs = 2;
    config.reliability.not_finite = "skip";
    const TinyResult result = train_tiny(config, {.world_size = ranks, .examples = 24, .poisoned = 13});
    EXPECT_EQ(result.state.global_step, 6);
    EXPECT_EQ(losses(result, "skipped_steps").back(), 2) << "once an epoch";
    const auto order = sample_order(24, 42, 0, Sampling::kRandom);
    const auto step = (std::find(order.begin(), order.end(), 13) - order.begin()) / 8 + 1;
    const auto weights = [&](std::int64_t i) {
      return digest_of_file(folder.path() / fmt::format("checkpoint-{}", i) / "model.safetensors");
    };
    for (std::int64_t i = 2; i <= 3; ++i) EXPECT_EQ(weights(i) == weights(i - 1), i == step) << i << ", " << ranks;
    EXPECT_TRUE(result.weights.isfinite().all().item<bool>());
  }
}

// 1e38 on each of four ranks: finite everywhere until they are added up.
TEST(LoopNotFinite, OverflowOfTheSumIsNoticed) {
  at::set_num_threads(1);
  run_thread_ranks(4, [](ThreadRank& rank) {
    class Huge final : public Model {
     public:
      Huge() : weight_(register_parameter("weight", at::ones({3}))) {}
      [[nodiscard]] ModelOutput forward(const Batch&) override {
        ModelOutput output;
        output.loss_sum = weight_.mul(1e38).select(0, 0);
        return output;
      }
      [[nodiscard]] Json config_json() const override { return {}; }
      [[nodiscard]] std::string model_type() const override { return "huge"; }

     private:
      at::Tensor weight_;
    };
    Huge model;
    std::vector<NamedParameter> parameters = {{"weight", model.parameters()[0], true}};
    const auto optimizer = make_adamw(parameters, {});
    Reducer reducer(model.parameters(), rank.communicator, {});
    GradScaler scaler;
    TrainStep step({model, parameters, *optimizer, reducer, rank.host, scaler}, {.skip_not_finite = true});
    Batch batch;
    batch.example_weight = {1.0F};
    batch.example_index = {rank.world.rank};
    batch.weight = 0.25;  // a step of weight 1: gradients are not divided
    const at::Tensor before = flat_weights(model);
    const StepResult result = step.run({batch}, 1, std::vector<double>{0.1}, 0);
    EXPECT_FALSE(result.updated);
    EXPECT_TRUE(at::equal(flat_weights(model), before));
  });
}

TEST(Drift, NamesTheRankAndTheTensor) {
  for (const int ranks : {2, 3, 4}) {
    for (const bool of_optimizer : {false, true}) {
      run_thread_ranks(ranks, [&](ThreadRank& rank) {
        TinyModel model(3);
        std::vector<NamedParameter> parameters;
        NamedTensors state;
        for (const auto& entry : model.named_parameters()) {
          parameters.push_back({entry.key(), entry.value(), true});
          state.emplace_back(entry.key() + ".exp_avg", entry.value().detach().clone());
        }
        check_drift(parameters, state, 10, rank.host);
        const bool faulty = rank.world.rank == ranks - 1;
        if (faulty) flip_bit(of_optimizer ? state[1].second : parameters[1].value);
        std::string message;
        try {
          check_drift(parameters, state, 20, rank.host);
        } catch (const Error& error) {
          EXPECT_EQ(error.code(), ExitCode::kDisagree);
          message = error.what();
        }
        EXPECT_THAT(message, HasSubstr(ranks == 2 ? "no majority" : fmt::format("rank {} holds other", ranks - 1)));
        EXPECT_THAT(message,
                    HasSubstr(of_optimizer ? "optimizer state classifier.weight.exp_avg" : "in classifier.weight"));
      });
    }
  }
}

}  // namespace
}  // namespace dtrain::test
