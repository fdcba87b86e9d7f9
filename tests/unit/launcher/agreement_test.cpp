// Every setting that differs on one rank stops the job before it starts, with the name of the setting and the ranks.
#include <atomic>
#include <filesystem>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "configs/config_text.h"
#include "configs/setting.h"
#include "core/clock.h"
#include "core/error.h"
#include "dist/thread_ranks.h"
#include "launcher/job_setup.h"
#include "launcher/versions.h"
#include "tests/support/temp_folder.h"

namespace dtrain {
namespace {

using testing::HasSubstr;

constexpr const char* kFile = R"(
[model]
path = "nowhere"
num_labels = 2
[data]
train = "train.jsonl"
eval = "eval.jsonl"
[training]
output_dir = "out"
eval_strategy = "steps"
save_strategy = "steps"
metric_for_best_model = "loss"
[reliability]
)";

TrainConfig config_with(const std::vector<std::string>& overrides) {
  return load_config(kFile, "a.toml", overrides).config;
}

// Settings in which others make sense.
const std::vector<std::vector<std::string>> kBases = {
    {},
    {"training.eval_strategy=epoch"},
    {"model.task=masked-lm", "model.num_labels="},
    {"model.task=seq2seq-lm", "model.num_labels=", "training.predict_with_generate=true"},
    {"data.eval=", "training.eval_strategy=no", "training.metric_for_best_model="},
    {"hub.repo=me/mine"},
    {"model.plugin=mine.so"},
    {"training.dataloader_num_workers=2"},
};

// Another value that the settings as a whole allow, as an override; nothing when none of the candidates is.
std::optional<std::string> other_value(const Setting& setting, const std::vector<std::string>& overrides) {
  TrainConfig base;
  try {
    base = config_with(overrides);
  } catch (const Error& error) {
    ADD_FAILURE() << error.what();
    return std::nullopt;
  }
  std::vector<std::string> candidates = setting.constraint.choices;
  if (setting.section == "metrics") candidates.insert(candidates.begin(), R"(["accuracy"])");
  if (setting.type == SettingType::kTable) candidates.insert(candidates.end(), {"{a = 1}", "{num_cycles = 2}"});
  if (setting.type == SettingType::kTableList) candidates.emplace_back(R"([{pattern = "bias", weight_decay = 0.5}])");
  candidates.insert(candidates.end(), {"true", "false", "0", "1", "2", "3", "64", "0.5", "0.25", "1.5", "x", R"(["x"])",
                                       R"(["x", "y"])", "500MB"});
  for (const std::string& candidate : candidates) {
    const std::string override = setting.name() + "=" + candidate;
    try {
      std::vector<std::string> all = overrides;
      all.push_back(override);
      for (const Difference& difference : diff(base, config_with(all))) {
        if (difference.name == setting.name()) return override;
      }
    } catch (const Error&) {
      continue;  // of another type, or against another setting
    }
  }
  return std::nullopt;
}

// What all ranks of a job of three say when rank `odd` is given `override`.
std::string refusal(const std::string& file, const std::vector<std::string>& overrides, const std::string& override,
                    int odd) {
  std::atomic<int> refused = 0;
  try {
    run_thread_ranks(3, [&](ThreadRank& rank) {
      Arguments arguments;
      arguments.file = file;
      arguments.overrides = overrides;
      if (rank.world.rank == odd) arguments.overrides.push_back(override);
      try {
        (void)agreed_config(arguments, rank.world, rank.host);
      } catch (const Error& error) {
        if (error.code() == ExitCode::kDisagree) ++refused;
        throw;
      }
    });
  } catch (const Error& error) {
    EXPECT_EQ(refused, 3) << override;
    return error.what();
  }
  return "no error";
}

TEST(Agreement, EachSettingThatDiffersIsNamed) {
  const test::TempFolder folder;
  const std::string file = folder.write("a.toml", kFile).string();
  std::vector<std::string> untried;
  int rank = 0;
  std::size_t tried = 0;
  for (const Setting& setting : all_settings()) {
    std::optional<std::string> override;
    std::size_t base = 0;
    while (!override && base < kBases.size()) override = other_value(setting, kBases[base++]);
    if (!override) {
      untried.push_back(setting.name());
      continue;
    }
    const Stopwatch watch;
    const std::string text = refusal(file, kBases[base - 1], *override, rank);
    EXPECT_THAT(text, HasSubstr(setting.name() + ": rank")) << *override;
    EXPECT_THAT(text, HasSubstr(fmt::format("rank {} has", rank))) << *override;
    EXPECT_LT(watch.seconds(), 2) << *override;
    rank = (rank + 1) % 3;
    ++tried;
  }
  // The one setting that has a single value.
  EXPECT_THAT(untried, testing::ElementsAre("training.average_tokens_across_devices"));
  EXPECT_EQ(tried + 1, all_settings().size());
  RecordProperty("settings", static_cast<int>(tried));
}

TEST(Agreement, AFileThatDiffersInACommentIsTheSame) {
  const test::TempFolder folder;
  const std::string first = folder.write("a.toml", kFile).string();
  const std::string second = folder.write("b.toml", std::string("# mine\n") + kFile).string();
  const std::string third = folder.write("c.toml", std::string(kFile) + "[tokenizer]\nmax_length = 7\n").string();
  const auto with_second_rank = [&](const std::string& other) {
    run_thread_ranks(2, [&](ThreadRank& rank) {
      Arguments arguments;
      arguments.file = rank.world.is_first() ? first : other;
      (void)agreed_config(arguments, rank.world, rank.host);
    });
  };
  with_second_rank(second);
  try {
    with_second_rank(third);
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kDisagree);
    EXPECT_THAT(error.what(), HasSubstr("tokenizer.max_length: rank 1 has \"7\", rank 0 has \"not set\""))
        << error.what();
  }
}

TEST(Agreement, TheBuildOfTheLibrariesIsKnown) {
  EXPECT_EQ(build_id("dtrain").size(), 32U);
  EXPECT_EQ(build_id("torch").size(), 32U);
  EXPECT_NE(build_id("dtrain"), build_id("torch"));
  EXPECT_EQ(build_id("no such library"), "");
}

}  // namespace
}  // namespace dtrain
