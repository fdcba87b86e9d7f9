// The loop: the same numbers for every split of a step, the Trainer's arithmetic and records, all ranks or none.
#include <cmath>
#include <csignal>
#include <filesystem>
#include <fstream>

#include <ATen/Parallel.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/equal.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "tests/support/temp_folder.h"
#include "tests/unit/trainer/loop_support.h"
#include "trainer/optim/lr_schedule.h"

namespace dtrain::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

std::vector<OrderedJson> records_with(const TrainerState& state, const std::string& key) {
  std::vector<OrderedJson> found;
  for (const OrderedJson& record : state.log_history) {
    if (record.contains(key)) found.push_back(record);
  }
  return found;
}

struct Split {
  int ranks;
  std::int64_t batch;
  std::int64_t accumulation;
};

class LoopSplits : public testing::TestWithParam<Split> {};

// 21 examples, global batch 8: the third step of an epoch has 5 examples, which the ranks share unevenly.
TEST_P(LoopSplits, GiveTheNumbersOfOneRank) {
  const TempFolder folder;
  TrainConfig config = tiny_config(folder.path() / "one");
  config.training.warmup_steps = 2;
  config.training.weight_decay = 0.1;
  const TinyResult one = train_tiny(config, {.world_size = 1});

  config.training.output_dir = (folder.path() / "split").string();
  config.training.per_device_train_batch_size = GetParam().batch;
  config.training.gradient_accumulation_steps = GetParam().accumulation;
  const TinyResult split = train_tiny(config, {.world_size = GetParam().ranks});

  const auto expected = records_with(one.state, "loss");
  const auto actual = records_with(split.state, "loss");
  ASSERT_EQ(expected.size(), 9U);
  ASSERT_EQ(actual.size(), expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i) {
    for (const char* key : {"loss", "grad_norm"}) {
      EXPECT_NEAR(actual[i][key].get<double>(), expected[i][key].get<double>(), 1e-5) << key << " of step " << i + 1;
    }
    EXPECT_EQ(actual[i]["learning_rate"], expected[i]["learning_rate"]);
    // The Trainer counts epochs in micro-batches, of which the last group may have fewer.
    const std::int64_t per_epoch =
        (21 + GetParam().ranks * GetParam().batch - 1) / (GetParam().ranks * GetParam().batch);
    const std::int64_t done = std::min(per_epoch, static_cast<std::int64_t>(i % 3 + 1) * GetParam().accumulation);
    EXPECT_DOUBLE_EQ(actual[i]["epoch"].get<double>(),
                     static_cast<double>(i / 3) + static_cast<double>(done) / static_cast<double>(per_epoch));
  }
  EXPECT_TRUE(at::allclose(split.weights, one.weights, 1e-4, 1e-5));
}

INSTANTIATE_TEST_SUITE_P(
    All, LoopSplits, testing::Values(Split{2, 4, 1}, Split{4, 2, 1}, Split{1, 4, 2}, Split{2, 2, 2}, Split{1, 2, 4}),
    [](const auto& test) {
      return fmt::format("{}ranks_batch{}_accumulate{}", test.param.ranks, test.param.batch, test.param.accumulation);
    });

// The whole computation of a step once more, in the plainest way: mean loss of the batch, AdamW by hand.
TEST(Loop, FirstStepsEqualAHandWrittenLoop) {
  const TempFolder folder;
  TrainConfig config = tiny_config(folder.path());
  config.training.max_steps = 3;
  config.training.max_grad_norm = 0.05;
  const TinyResult result = train_tiny(config, {.examples = 24});

  TinyModel model(11);
  const TinyDataset data(24);
  const auto order = sample_order(24, 42, 0, Sampling::kRandom);
  const LrSchedule schedule = make_lr_schedule({.name = "linear", .total_steps = 3});
  std::vector<at::Tensor> parameters = model.parameters();
  std::vector<at::Tensor> mean(parameters.size()), square(parameters.size());
  const auto records = records_with(result.state, "loss");
  for (int step = 0; step < 3; ++step) {
    std::vector<Example> examples;
    for (int i = 0; i < 8; ++i) examples.push_back(data.get(order[static_cast<std::size_t>(8 * step + i)]));
    Batch batch = tiny_collator()->collate(examples, {});
    batch.example_weight.assign(8, 1.0F);
    const at::Tensor loss = model.forward(batch).loss_sum / 8;
    for (at::Tensor& parameter : parameters) parameter.mutable_grad() = at::Tensor();
    loss.backward();
    double norm = 0;
    for (const at::Tensor& parameter : parameters) norm += std::pow(parameter.grad().norm().item<double>(), 2);
    norm = std::sqrt(norm);
    const auto& record = records[static_cast<std::size_t>(step)];
    EXPECT_NEAR(record["loss"].get<double>(), loss.item<double>(), 1e-6);
    EXPECT_NEAR(record["grad_norm"].get<double>(), norm, 1e-6);
    const double rate = 0.05 * schedule(step);
    EXPECT_DOUBLE_EQ(record["learning_rate"].get<double>(), rate);
    const double clip = std::min(1.0, 0.05 / (norm + 1e-6));
    EXPECT_LT(clip, 1.0) << "the test means to clip";
    const at::NoGradGuard no_gradient;
    for (std::size_t p = 0; p < parameters.size(); ++p) {
      const at::Tensor gradient = parameters[p].grad() * clip;
      mean[p] = step == 0 ? gradient * 0.1 : mean[p] * 0.9 + gradient * 0.1;
      square[p] = step == 0 ? gradient * gradient * 0.001 : square[p] * 0.999 + gradient * gradient * 0.001;
      const double mean_correction = 1 - std::pow(0.9, step + 1);
      const double square_correction = 1 - std::pow(0.999, step + 1);
      parameters[p].sub_(rate * (mean[p] / mean_correction) / ((square[p] / square_correction).sqrt() + 1e-8));
    }
  }
  EXPECT_TRUE(at::allclose(result.weights, flat_weights(model), 1e-4, 1e-6));
}

TEST(Loop, RecordsHaveTheTrainersKeysInItsOrder) {
  const TempFolder folder;
  TrainConfig config = tiny_config(folder.path());
  config.training.max_steps = 4;
  config.training.logging_steps = 2;
  config.training.eval_strategy = "steps";
  config.training.eval_steps = 2;
  config.metrics.compute = {"accuracy"};
  const TinyResult result = train_tiny(config, {.eval_examples = 9});
  std::vector<std::string> keys;
  for (const OrderedJson& record : result.state.log_history) {
    std::string names;
    for (const auto& item : record.items()) names += item.key() + " ";
    keys.push_back(names);
  }
  const std::string train = "loss grad_norm learning_rate epoch step ";
  const std::string eval =
      "eval_loss eval_accuracy eval_runtime eval_samples_per_second eval_steps_per_second epoch step ";
  EXPECT_EQ(keys, (std::vector<std::string>{train, eval, train, eval,
                                            "train_runtime train_samples_per_second train_steps_per_second total_flos "
                                            "train_loss epoch step "}));
  // Two steps a record, and the record's loss is their mean.
  EXPECT_EQ(result.state.log_history[0]["step"], 2);
  EXPECT_EQ(result.state.global_step, 4);
}

TEST(Loop, LogsTheMeanOfTheStepsSinceTheLastLog) {
  const TempFolder folder;
  TrainConfig config = tiny_config(folder.path() / "each");
  config.training.max_steps = 6;
  const auto each = records_with(train_tiny(config, {}).state, "loss");
  config.training.output_dir = (folder.path() / "pairs").string();
  config.training.logging_steps = 3;
  const auto threes = records_with(train_tiny(config, {}).state, "loss");
  ASSERT_EQ(threes.size(), 2U);
  for (std::size_t i = 0; i < 2; ++i) {
    double sum = 0;
    for (std::size_t j = 0; j < 3; ++j) sum += each[3 * i + j]["loss"].get<double>();
    EXPECT_NEAR(threes[i]["loss"].get<double>(), sum / 3, 1e-12);
    EXPECT_EQ(threes[i]["grad_norm"], each[3 * i + 2]["grad_norm"]);
  }
}

struct Length {
  double epochs;
  std::int64_t max_steps;
  bool drop_last;
  std::int64_t steps;
  double last_epoch;
};

class LoopLengths : public testing::TestWithParam<Length> {};

TEST_P(LoopLengths, FollowTheTrainersArithmetic) {
  const TempFolder folder;
  TrainConfig config = tiny_config(folder.path());
  config.training.num_train_epochs = GetParam().epochs;
  config.training.max_steps = GetParam().max_steps;
  config.training.dataloader_drop_last = GetParam().drop_last;
  const TinyResult result = train_tiny(config, {});
  EXPECT_EQ(result.outcome.global_step, GetParam().steps);
  EXPECT_DOUBLE_EQ(result.state.epoch, GetParam().last_epoch);
}

// 21 examples in batches of 8: 3 micro-batches an epoch, 2 with drop_last.
INSTANTIATE_TEST_SUITE_P(All, LoopLengths,
                         testing::Values(Length{1, -1, false, 3, 1}, Length{0.5, -1, false, 2, 2.0 / 3},
                                         Length{1.4, -1, false, 5, 5.0 / 3}, Length{3, 7, false, 7, 7.0 / 3},
                                         Length{2, -1, true, 4, 2}, Length{1, 1, false, 1, 1.0 / 3}));

TEST(Loop, ALossThatIsNotANumberOnOneRankChangesNoWeights) {
  for (const int ranks : {1, 2, 4}) {
    const TempFolder folder;
    TrainConfig config = tiny_config(folder.path());
    config.training.per_device_train_batch_size = 8 / ranks;
    // The example comes in some step of the first epoch; the checkpoint of the step before it must equal the weights
    // then.
    config.training.save_strategy = "steps";
    config.training.save_steps = 1;
    try {
      (void)train_tiny(config, {.world_size = ranks, .poisoned = 13});
      FAIL() << "no error";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kData);
      const auto order = sample_order(21, 42, 0, Sampling::kRandom);
      const auto place = std::find(order.begin(), order.end(), 13) - order.begin();
      EXPECT_THAT(error.what(), HasSubstr(fmt::format("step {}: the loss is not finite", place / 8 + 1)));
      EXPECT_THAT(error.what(), testing::ContainsRegex("rank [0-3]: 13$"));  // the number of tokens decides which
    }
    EXPECT_FALSE(fs::exists(folder.path() / "model.safetensors"));
  }
}

TEST(Loop, WeightsAreUntouchedByAStepThatIsNotFinite) {
  at::set_num_threads(1);
  const TinyDataset data(8, 1, 5);
  run_thread_ranks(2, [&](ThreadRank& rank) {
    TinyModel model(3);
    std::vector<NamedParameter> parameters;
    for (const auto& entry : model.named_parameters()) parameters.push_back({entry.key(), entry.value(), true});
    const auto optimizer = make_adamw(parameters, {.weight_decay = 0.1});
    Reducer reducer(model.parameters(), rank.communicator, {});
    GradScaler scaler;
    TrainStep step({model, parameters, *optimizer, reducer, rank.host, scaler}, {});
    const at::Tensor before = flat_weights(model);
    std::vector<Example> examples;
    for (int i = 0; i < 4; ++i) examples.push_back(data.get(4 * rank.world.rank + i));
    Batch batch = tiny_collator()->collate(examples, {});
    batch.example_weight.assign(4, 1.0F);
    batch.weight = 4;
    for (int i = 0; i < 4; ++i) batch.example_index.push_back(4 * rank.world.rank + i);
    try {
      (void)step.run({batch}, 1, std::vector<double>{0.1}, 0);
      ADD_FAILURE() << "no error on rank " << rank.world.rank;
    } catch (const PeerFailed&) {
      ADD_FAILURE() << "rank " << rank.world.rank << " heard of the failure only from its peer";
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr("rank 1: 5"));
    }
    EXPECT_TRUE(at::equal(flat_weights(model), before)) << "rank " << rank.world.rank;
  });
}

TEST(Loop, TooFewExamplesForOneBatchIsAnError) {
  const TempFolder folder;
  TrainConfig config = tiny_config(folder.path());
  config.training.dataloader_drop_last = true;
  EXPECT_THROW((void)train_tiny(config, {.world_size = 4}), Error);
}

}  // namespace
}  // namespace dtrain::test
