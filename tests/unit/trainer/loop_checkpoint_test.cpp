// Checkpoints of the loop: resuming equals never having stopped, the best model, limits, refused changes.
#include <csignal>
#include <filesystem>
#include <set>

#include <ATen/ops/equal.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "core/file.h"
#include "tests/support/temp_folder.h"
#include "tests/unit/trainer/loop_support.h"
#include "trainer/checkpoint/run_json.h"
#include "trainer/resume.h"

namespace dtrain::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

std::set<std::string> checkpoints(const fs::path& folder) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().filename().string().starts_with("checkpoint-")) names.insert(entry.path().filename().string());
  }
  return names;
}

// Without what depends on the clock, and with sorted keys: trainer_state.json, from which a resumed run reads, sorts
// them.
std::vector<std::string> comparable(const std::vector<OrderedJson>& history) {
  std::vector<std::string> lines;
  for (const OrderedJson& record : history) {
    Json kept = Json::object();
    for (const auto& item : record.items()) {
      if (!item.key().ends_with("runtime") && !item.key().ends_with("per_second")) kept[item.key()] = item.value();
    }
    lines.push_back(kept.dump());
  }
  return lines;
}

// What was there when on_save came.
struct SaveListener final : Callback {
  void on_save(const TrainerState&, TrainerControl&, const fs::path& folder) override {
    saved.push_back(folder.filename().string());
    all_whole = all_whole && checkpoint_damage(folder).empty();
  }
  std::vector<std::string> saved;
  bool all_whole = true;
};

struct Stop {
  int ranks;
  std::int64_t step;
  std::string strategy;
};

class LoopResume : public testing::TestWithParam<Stop> {};

// One rank alone receives a signal before step `step`; all stop after it. What follows must be as if nothing had
// happened: also in the middle of an epoch, between two logs, at the end of an epoch, and where an evaluation was due.
TEST_P(LoopResume, EqualsTheUninterruptedRun) {
  const TempFolder folder;
  TrainConfig config = tiny_config(folder.path() / "whole");
  config.training.per_device_train_batch_size = 4;
  config.training.gradient_accumulation_steps = 2;
  config.training.num_train_epochs = 3.5;
  config.training.logging_steps = 3;
  config.training.eval_strategy = GetParam().strategy;
  config.training.save_strategy = GetParam().strategy;
  config.training.eval_steps = 2;
  config.training.save_steps = 2;
  config.training.load_best_model_at_end = true;
  config.training.weight_decay = 0.01;
  config.training.warmup_steps = 3;
  config.metrics.compute = {"accuracy"};
  config.training.resume_from_checkpoint = "latest";
  TinyRun run{.world_size = GetParam().ranks, .examples = 37, .eval_examples = 11};
  const TinyResult whole = train_tiny(config, run);

  config.training.output_dir = (folder.path() / "parts").string();
  run.signal = [&](int rank, std::int64_t asked) {
    return rank == GetParam().ranks - 1 && asked == GetParam().step ? SIGUSR2 : 0;
  };
  const TinyResult stopped = train_tiny(config, run);
  EXPECT_EQ(stopped.outcome.signal, SIGUSR2);
  EXPECT_EQ(stopped.state.global_step, GetParam().step);
  EXPECT_EQ(read_run_record(folder.path() / "parts")->exit, 75);
  EXPECT_FALSE(fs::exists(folder.path() / "parts" / "model.safetensors"));
  run.signal = {};
  const TinyResult resumed = train_tiny(config, run);

  EXPECT_EQ(resumed.state.global_step, whole.state.global_step);
  EXPECT_TRUE(at::equal(resumed.weights, whole.weights));
  EXPECT_EQ(comparable(resumed.state.log_history), comparable(whole.state.log_history));
  EXPECT_EQ(resumed.state.best_metric, whole.state.best_metric);
  EXPECT_EQ(resumed.state.best_global_step, whole.state.best_global_step);
  EXPECT_EQ(resumed.outcome.train_loss, whole.outcome.train_loss);
  EXPECT_EQ(read_file(folder.path() / "whole" / "model.safetensors"),
            read_file(folder.path() / "parts" / "model.safetensors"));
}

INSTANTIATE_TEST_SUITE_P(All, LoopResume,
                         testing::Values(Stop{1, 1, "steps"}, Stop{1, 4, "steps"}, Stop{1, 5, "epoch"},
                                         Stop{1, 7, "steps"}, Stop{1, 10, "epoch"}, Stop{1, 18, "steps"},
                                         Stop{2, 3, "steps"}, Stop{2, 6, "epoch"}),
                         [](const auto& test) {
                           return fmt::format("{}ranks_step{}_{}", test.param.ranks, test.param.step,
                                              test.param.strategy);
                         });

TEST(LoopCheckpoint, BestAndLastStayWithinTheLimitAndTheBestIsTheResult) {
  const TempFolder folder;
  TrainConfig config = tiny_config(folder.path());
  config.training.max_steps = 20;
  config.training.learning_rate = 0.4;  // so high that the loss on other data rises again
  config.training.lr_scheduler_type = "constant";
  config.training.eval_strategy = "steps";
  config.training.eval_steps = 2;
  config.training.save_strategy = "steps";
  config.training.save_steps = 2;
  config.training.save_total_limit = 2;
  config.training.load_best_model_at_end = true;
  const TinyResult result = train_tiny(config, {.world_size = 2, .eval_examples = 15});
  double best_loss = 1e9;
  std::int64_t best = 0;
  for (const OrderedJson& record : result.state.log_history) {
    if (record.contains("eval_loss") && record["eval_loss"].get<double>() < best_loss) {
      best_loss = record["eval_loss"].get<double>();
      best = record["step"].get<std::int64_t>();
    }
  }
  ASSERT_LT(best, 20) << "the model never got worse: the test shows nothing";
  EXPECT_EQ(result.outcome.best_step, best);
  EXPECT_EQ(result.outcome.eval_metrics["eval_loss"], best_loss);
  EXPECT_EQ(checkpoints(folder.path()), (std::set<std::string>{fmt::format("checkpoint-{}", best), "checkpoint-20"}));
  EXPECT_EQ(read_file(folder.path() / "model.safetensors"),
            read_file(folder.path() / fmt::format("checkpoint-{}", best) / "model.safetensors"));
  EXPECT_EQ(read_json_file(folder.path() / "eval_results.json")["eval_samples"], 15);
  EXPECT_EQ(read_run_record(folder.path())->state, "done");
  EXPECT_EQ(read_file(folder.path() / "vocab.txt"), "a\nb\n");
}

TEST(LoopCheckpoint, SaveStrategyBestSavesOnlyImprovements) {
  const TempFolder folder;
  TrainConfig config = tiny_config(folder.path());
  config.training.max_steps = 12;
  config.training.learning_rate = 0.4;
  config.training.eval_strategy = "steps";
  config.training.eval_steps = 2;
  config.training.save_strategy = "best";
  config.training.metric_for_best_model = "loss";
  const TinyResult result = train_tiny(config, {.eval_examples = 15});
  std::set<std::string> expected;
  double best = 1e9;
  for (const OrderedJson& record : result.state.log_history) {
    if (!record.contains("eval_loss") || record["eval_loss"].get<double>() >= best) continue;
    best = record["eval_loss"].get<double>();
    expected.insert(fmt::format("checkpoint-{}", record["step"].get<std::int64_t>()));
  }
  EXPECT_EQ(checkpoints(folder.path()), expected);
}

TEST(LoopCheckpoint, ATieKeepsTheEarlierAndNanIsNeverTheBest) {
  const TempFolder folder;
  TrainConfig config = tiny_config(folder.path() / "tie");
  config.training.max_steps = 6;
  config.training.eval_strategy = "steps";
  config.training.eval_steps = 2;
  config.training.save_strategy = "steps";
  config.training.save_steps = 2;
  config.training.load_best_model_at_end = true;
  config.training.save_total_limit = 2;
  config.training.learning_rate = 1e-30;  // the weights stay as they are
  config.reliability.save_in_background = false;
  const TinyResult tied = train_tiny(config, {.eval_examples = 15});
  EXPECT_EQ(tied.state.best_global_step, 2);
  EXPECT_EQ(tied.outcome.best_step, 2);
  EXPECT_EQ(checkpoints(folder.path() / "tie"), (std::set<std::string>{"checkpoint-2", "checkpoint-6"}));

  config.training.output_dir = (folder.path() / "nan").string();
  const TinyResult poisoned = train_tiny(config, {.eval_examples = 15, .eval_poisoned = 3});
  EXPECT_FALSE(poisoned.state.best_global_step);
  EXPECT_FALSE(poisoned.outcome.best_step);
  EXPECT_EQ(checkpoints(folder.path() / "nan"), (std::set<std::string>{"checkpoint-4", "checkpoint-6"}));
  EXPECT_FALSE(read_run_record(folder.path() / "nan")->best_step);

  config.training.output_dir = (folder.path() / "missing").string();
  config.training.metric_for_best_model = "beauty";
  try {
    (void)train_tiny(config, {.eval_examples = 15});
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kUsage);
    EXPECT_THAT(error.what(), HasSubstr("eval_beauty"));
  }
}

TEST(LoopCheckpoint, InTheBackgroundTheFilesAreTheSame) {
  const TempFolder folder;
  TrainConfig config = tiny_config(folder.path() / "behind");
  config.training.max_steps = 7;
  config.training.save_strategy = "steps";
  config.training.save_steps = 2;
  const auto listener = std::make_shared<SaveListener>();
  (void)train_tiny(config, {.world_size = 2, .watcher = listener});
  EXPECT_EQ(listener->saved,
            (std::vector<std::string>{"checkpoint-2", "checkpoint-4", "checkpoint-6", "checkpoint-7"}));
  EXPECT_TRUE(listener->all_whole);
  config.training.output_dir = (folder.path() / "at-once").string();
  config.reliability.save_in_background = false;
  (void)train_tiny(config, {.world_size = 2});
  ASSERT_EQ(checkpoints(folder.path() / "behind"), checkpoints(folder.path() / "at-once"));
  for (const std::string& checkpoint : checkpoints(folder.path() / "behind")) {
    int compared = 0;
    for (const auto& entry : fs::directory_iterator(folder.path() / "behind" / checkpoint)) {
      const std::string name = entry.path().filename().string();
      // train.toml has the two settings that differ, and the manifest has its digest.
      if (name == "train.toml" || name == "manifest.json") continue;
      EXPECT_EQ(read_file(entry.path()), read_file(folder.path() / "at-once" / checkpoint / name)) << name;
      ++compared;
    }
    EXPECT_EQ(compared, 5) << checkpoint;
  }
}

TEST(LoopCheckpoint, AChangedIdentityRefusesToResume) {
  const TempFolder folder;
  TrainConfig config = tiny_config(folder.path());
  config.training.max_steps = 2;
  config.training.save_strategy = "steps";
  config.training.save_steps = 2;
  (void)train_tiny(config, {});
  config.training.resume_from_checkpoint = "latest";
  const auto refusal = [&](const TrainConfig& changed, const TinyRun& run) -> std::string {
    try {
      (void)train_tiny(changed, run);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kDisagree);
      return error.what();
    }
    return "";
  };
  TrainConfig changed = config;
  changed.training.seed = 43;
  changed.training.per_device_train_batch_size = 4;
  EXPECT_THAT(refusal(changed, {}), HasSubstr("training.seed is 43, was 42"));
  EXPECT_THAT(refusal(changed, {}), HasSubstr("training.per_device_train_batch_size is 4, was 8"));
  EXPECT_THAT(refusal(config, {.examples = 22}), HasSubstr("training data"));
  // What only describes the plan may change.
  changed = config;
  changed.training.max_steps = 5;
  changed.training.logging_steps = 2;
  EXPECT_EQ(train_tiny(changed, {}).state.global_step, 5);
}

TEST(LoopCheckpoint, AFinishedRunResumesToNothing) {
  const TempFolder folder;
  TrainConfig config = tiny_config(folder.path());
  config.training.max_steps = 4;
  config.training.save_strategy = "steps";
  config.training.save_steps = 4;
  const TinyResult first = train_tiny(config, {});
  config.training.resume_from_checkpoint = "latest";
  const TinyResult again = train_tiny(config, {});
  EXPECT_EQ(again.state.global_step, 4);
  EXPECT_TRUE(at::equal(first.weights, again.weights));
}

TEST(LoopCheckpoint, AMissingOrDamagedCheckpointIsAnError) {
  const TempFolder folder;
  TrainConfig config = tiny_config(folder.path() / "out");
  config.training.resume_from_checkpoint = (folder.path() / "nowhere").string();
  EXPECT_THROW((void)train_tiny(config, {}), Error);
  config.training.resume_from_checkpoint.reset();
  config.training.max_steps = 2;
  config.training.save_strategy = "steps";
  config.training.save_steps = 2;
  (void)train_tiny(config, {});
  const fs::path weights = folder.path() / "out" / "checkpoint-2" / "model.safetensors";
  std::string bytes = read_file(weights);
  bytes.back() = static_cast<char>(bytes.back() ^ 1);
  write_file_synced(weights, bytes);
  config.training.resume_from_checkpoint = weights.parent_path().string();
  try {
    (void)train_tiny(config, {});
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kData);
    EXPECT_THAT(error.what(), HasSubstr("model.safetensors"));
  }
}

}  // namespace
}  // namespace dtrain::test
