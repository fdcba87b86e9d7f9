// The table of settings against the peer's own fields and defaults, and each check of a single value.
#include <cmath>
#include <limits>
#include <map>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "config_support.h"
#include "configs/known_names.h"
#include "core/json.h"

namespace dtrain {
namespace {

using test::error_of;
using test::load;
using test::toml_with;
using testing::HasSubstr;

const Json& peer() {
  static const Json record = read_json_file("tests/data/training_arguments.json");
  return record;
}

TEST(Settings, EveryFieldOfTheTrainerIsASettingOrKnownByName) {
  ASSERT_EQ(peer().at("transformers"), "5.17.0");
  ASSERT_GT(peer().at("defaults").size(), 115U);
  for (const auto& [name, value] : peer().at("defaults").items()) {
    const bool is_setting = find_setting("training", name) != nullptr;
    const bool is_known = find_unsupported("training", name) != nullptr;
    EXPECT_TRUE(is_setting != is_known) << name << ": setting " << is_setting << ", known as unsupported " << is_known;
  }
}

TEST(Settings, DefaultsAreTheTrainers) {
  struct Deviation {
    Json ours;
    const char* reason;
  };
  const std::map<std::string, Deviation> deviations = {
      {"output_dir", {"trainer_output", "None becomes this in the Trainer's own __post_init__"}},
      {"lr_scheduler_kwargs", {Json::object(), "a table cannot be None; no extra arguments either way"}},
      {"report_to", {Json::array({"none"}), "always held as a list"}},
  };
  int compared = 0;
  for (const Setting& setting : all_settings()) {
    if (setting.section != "training" || !peer().at("defaults").contains(setting.key)) continue;
    ++compared;
    const auto deviation = deviations.find(setting.key);
    const Json expected =
        deviation == deviations.end() ? peer().at("defaults").at(setting.key) : deviation->second.ours;
    EXPECT_EQ(setting.default_value, expected) << setting.key;
  }
  EXPECT_GE(compared, 45);
}

TEST(Settings, OnlyTheseTrainingKeysAreNotFieldsOfTheTrainer) {
  std::set<std::string> own;
  for (const Setting& setting : all_settings()) {
    if (setting.section == "training" && !peer().at("defaults").contains(setting.key)) own.insert(setting.key);
  }
  // The first was a field until version 5.
  EXPECT_EQ(own, std::set<std::string>(
                     {"overwrite_output_dir", "freeze", "parameter_groups", "reproducible", "shard_optimizer"}));
}

TEST(Settings, DefaultsOfUnsupportedNamesAreTheTrainers) {
  for (const UnsupportedName& name : all_unsupported_names()) {
    if (!peer().at("defaults").contains(name.name)) continue;  // an argument of an earlier version
    const Json& expected = peer().at("defaults").at(name.name);
    EXPECT_EQ(name.peer_default, expected) << name.name;
    EXPECT_EQ(name.peer_default.is_boolean(), expected.is_boolean()) << name.name;
  }
}

TEST(Settings, EveryChoiceOfTheTrainerIsSupportedOrKnown) {
  for (const auto& [key, choices] : peer().at("choices").items()) {
    const Setting* setting = find_setting("training", key);
    ASSERT_NE(setting, nullptr) << key;
    std::set<std::string> known(setting->constraint.choices.begin(), setting->constraint.choices.end());
    known.insert(setting->constraint.known_elsewhere.begin(), setting->constraint.known_elsewhere.end());
    for (const Json& choice : choices) EXPECT_TRUE(known.contains(choice.get<std::string>())) << key << " " << choice;
  }
}

TEST(Settings, EveryDefaultPassesItsOwnCheckAndEveryRowHasText) {
  std::set<std::string> names;
  for (const Setting& setting : all_settings()) {
    EXPECT_TRUE(names.insert(setting.name()).second) << setting.name() << " appears twice";
    EXPECT_GT(setting.doc.size(), 10U) << setting.name();
    const bool none = setting.default_value.is_null() ||
                      (setting.constraint.kind == Constraint::Kind::kRequired && setting.default_value == "");
    if (none) continue;
    EXPECT_EQ(checked_value(setting, setting.default_value, "here"), setting.default_value) << setting.name();
  }
}

TEST(Settings, TheStructHoldsWhatSetStoresAndGetReads) {
  for (const Setting& setting : all_settings()) {
    if (setting.constraint.kind == Constraint::Kind::kOnly) continue;
    const Json value = test::other_value(setting);
    if (value.is_null()) continue;  // a single choice
    TrainConfig config;
    setting.set(config, checked_value(setting, value, "here"));
    EXPECT_EQ(setting.get(config), value) << setting.name();
    EXPECT_NE(setting.get(config), setting.default_value) << setting.name();
    if (setting.optional) {
      setting.set(config, nullptr);
      EXPECT_TRUE(setting.get(config).is_null()) << setting.name();
    }
  }
  TrainConfig config;
  find_setting("training", "learning_rate")->set(config, 0.25);
  EXPECT_EQ(config.training.learning_rate, 0.25);
  find_setting("metrics", "compute")->set(config, {"accuracy"});
  EXPECT_EQ(config.metrics.compute, std::vector<std::string>({"accuracy"}));
}

TEST(Settings, EverySettingRefusesEveryOtherType) {
  const std::vector<Json> values = {true, 1, 1.5, "text", Json::array({1}), Json::object({{"a", Json::array()}})};
  for (const Setting& setting : all_settings()) {
    int accepted = 0;
    for (const Json& value : values) {
      try {
        (void)checked_value(setting, value, "f:1:1");
        ++accepted;
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ExitCode::kUsage);
        EXPECT_THAT(error.what(), HasSubstr("f:1:1: " + setting.name() + ": "));
      }
    }
    EXPECT_LE(accepted, 2) << setting.name();  // 1 and 1.5 where a number is wanted
  }
}

struct Refused {
  const char* line;
  const char* message;
};

TEST(Settings, RefusesWrongTypesWithAHint) {
  const std::vector<Refused> cases = {
      {"learning_rate = \"3e-5\"",
       "run.toml:7:1: training.learning_rate: needs a number, not a string (\"3e-5\") | write it "
       "without quotes: learning_rate = 3e-5"},
      {"bf16 = \"true\"", "needs true or false, not a string (\"true\") | write it without quotes: bf16 = true"},
      {"bf16 = 1", "training.bf16: needs true or false, not a whole number (1)"},
      {"seed = 42.0",
       "needs a whole number, not a number with a fraction (42.0) | write it without a fraction: seed = 42"},
      {"seed = 1.5", "needs a whole number, not a number with a fraction (1.5)"},
      {"output_dir = 3", "write it in quotes: output_dir = \"3\""},
      {"output_dir = [\"a\"]", "needs a string, not a list ([\"a\"])"},
      {"learning_rate = 2024-01-01", "is a date or time"},
      {"report_to = 1", "write report_to = [\"one\", \"two\"]"},
      {"report_to = [1]", "needs a list of strings; 1 is a whole number"},
      {"lr_scheduler_kwargs = 1", "needs a table"},
      {"lr_scheduler_kwargs = \"num_cycles=2\"", "is not JSON"},
      {"lr_scheduler_kwargs = { a = [1] }", "a is a list; only numbers"},
      {"lr_scheduler_kwargs = { a = nan }", "a is not a finite number"},
      {"parameter_groups = { pattern = \"a\" }",
       "needs a list of tables, not a table ({ pattern = \"a\" }) | write [[training.parameter_groups]] above the keys "
       "of "
       "each table"},
      {"parameter_groups = [1]", "needs a list of tables; 1 is a whole number"},
      {"parameter_groups = [{ pattern = [\"a\"] }]", "pattern is a list; only numbers"},
  };
  for (const Refused& refused : cases) {
    EXPECT_THAT(error_of(toml_with(refused.line)), HasSubstr(refused.message)) << refused.line;
  }
}

TEST(Settings, RefusesValuesOutOfRange) {
  const std::vector<Refused> cases = {
      {"learning_rate = -1e-5", "training.learning_rate: -1e-05 is out of range (0 to 1000000)"},
      {"learning_rate = nan", "nan is not a finite number"},
      {"learning_rate = inf", "inf is not a finite number"},
      {"learning_rate = -inf", "-inf is not a finite number"},
      {"num_train_epochs = 0", "0 is out of range (above 0 to 1000000)"},
      {"per_device_train_batch_size = 0", "0 is out of range (1 to 16777216)"},
      {"per_device_train_batch_size = 9223372036854775807", "out of range"},
      {"max_steps = -2", "-2 is out of range (-1 or more)"},
      {"adam_beta2 = 1.0", "1.0 is out of range (0 to below 1)"},
      {"warmup_steps = -0.5", "-0.5 is out of range"},
      {"warmup_steps = 1.5", "1.5 is out of range (a whole number, or a share from 0 to below 1)"},
      {"logging_steps = 2.5", "2.5 is out of range"},
      {"eval_steps = 1e300", "out of range"},
      {"seed = 4294967296", "out of range (0 to 4294967295)"},
      {"seed = -1", "out of range"},
      {"save_total_limit = -1", "out of range (0 or more)"},
      {"eval_strategy = \"epochs\"",
       "\"epochs\" is not a known choice | did you mean \"epoch\"? choose one of: no, steps, epoch"},
      {"optim = \"ademamix\"", "known to the Hugging Face Trainer"},
      {"train_sampling_strategy = \"batch_rebalance\"", "known to the Hugging Face Trainer"},
      {"report_to = \"wandb\"", "known to the Hugging Face Trainer"},
      {"report_to = [\"jsonl\", \"jsonl\"]", "contains \"jsonl\" twice"},
      {"average_tokens_across_devices = false", "dtrain supports only true"},
      {"output_dir = \"\"", "training.output_dir: is empty"},
      {"resume_from_checkpoint = \"\"", "is empty | leave the key out to keep the default"},
      {"output_dir = \"a\\u0000b\"", "contains a NUL character"},
  };
  for (const Refused& refused : cases) {
    EXPECT_THAT(error_of(toml_with(refused.line)), HasSubstr(refused.message)) << refused.line;
  }
}

TEST(Settings, AcceptsTheEdgesOfRanges) {
  const TrainConfig config =
      load(toml_with("learning_rate = 0\nadam_beta1 = 0\nwarmup_steps = 1\nlogging_steps = 0.001\n"
                     "seed = 4294967295\nsave_total_limit = 0\nmax_steps = -1\nweight_decay = -0.0\n"))
          .config;
  EXPECT_EQ(config.training.learning_rate, 0.0);
  EXPECT_EQ(config.training.warmup_steps, 1.0);
  EXPECT_EQ(config.training.logging_steps, 0.001);
  EXPECT_EQ(config.training.seed, 4294967295);
  EXPECT_EQ(config.training.save_total_limit, 0);
  EXPECT_FALSE(std::signbit(config.training.weight_decay));
}

TEST(Settings, MetricNames) {
  const auto with = [](const std::string& list) { return "[metrics]\ncompute = " + list + "\n" + toml_with(""); };
  EXPECT_EQ(load(with("[\"accuracy\", \"f1:weighted\", \"recall\"]")).config.metrics.compute.size(), 3U);
  EXPECT_EQ(load(with("\"accuracy\"")).config.metrics.compute, std::vector<std::string>({"accuracy"}));
  EXPECT_THAT(
      error_of(with("[\"acuracy\"]")),
      HasSubstr("run.toml:2:1: metrics.compute: \"acuracy\" is not a known metric | did you mean \"accuracy\"?"));
  EXPECT_THAT(error_of(with("[\"f1:best\"]")), HasSubstr("unknown variant"));
  EXPECT_THAT(error_of(with("[\"f1:\"]")), HasSubstr("unknown variant"));
  EXPECT_THAT(error_of(with("[\"accuracy:macro\"]")), HasSubstr("has no variants"));
  EXPECT_THAT(error_of(with("[\"f1:macro\", \"f1:micro\"]")),
              HasSubstr("is the second metric whose result would be named \"f1\""));
  EXPECT_THAT(error_of(with("[\"\"]")), HasSubstr("empty string"));
}

TEST(Settings, ScheduleArgumentsMayBeJsonText) {
  const Json kwargs = load(toml_with("lr_scheduler_kwargs = '{\"num_cycles\": 2, \"power\": 0.5}'"))
                          .config.training.lr_scheduler_kwargs;
  EXPECT_EQ(kwargs, Json({{"num_cycles", 2}, {"power", 0.5}}));
  EXPECT_TRUE(kwargs.at("num_cycles").is_number_integer());
}

}  // namespace
}  // namespace dtrain
