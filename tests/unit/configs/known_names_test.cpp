// Old names and names that only the peer has.
#include <algorithm>
#include <optional>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "config_support.h"
#include "configs/known_names.h"

namespace dtrain {
namespace {

using test::error_of;
using test::load;
using test::toml_with;
using test::toml_with_eval;
using testing::HasSubstr;

TEST(Alias, OldNamesSetTheNewOnesWithOneWarning) {
  struct Case {
    const char* line;
    const char* key;
    Json value;
  };
  const std::vector<Case> cases = {
      {"evaluation_strategy = \"epoch\"", "eval_strategy", "epoch"},
      {"evaluation_steps = 50", "eval_steps", 50.0},
      {"evaluate_during_training = true", "eval_strategy", "steps"},
      {"evaluate_during_training = false", "eval_strategy", "no"},
      {"warmup_ratio = 0.1", "warmup_steps", 0.1},
      {"no_cuda = true", "use_cpu", true},
      {"per_gpu_train_batch_size = 3", "per_device_train_batch_size", 3},
      {"per_gpu_eval_batch_size = 4", "per_device_eval_batch_size", 4},
      {"group_by_length = false", "train_sampling_strategy", "random"},
      {"group_by_length = true", "train_sampling_strategy", "group_by_length"},
  };
  std::set<std::string> seen;
  for (const Case& c : cases) {
    const LoadedConfig loaded = load(toml_with_eval(c.line));
    const Setting* setting = find_setting("training", c.key);
    EXPECT_EQ(setting->get(loaded.config), c.value) << c.line;
    ASSERT_EQ(loaded.warnings.size(), 1U) << c.line;
    EXPECT_THAT(loaded.warnings[0], HasSubstr("run.toml:8:1: training."));
    EXPECT_THAT(loaded.warnings[0], HasSubstr("is an old name, write training." + std::string(c.key)));
    EXPECT_EQ(loaded.origins.at(setting->name()).where, "run.toml:8:1");
    seen.insert(std::string(c.line).substr(0, std::string(c.line).find(' ')));
  }
  const auto old_names =
      std::count_if(all_aliases().begin(), all_aliases().end(), [](const Alias& a) { return a.section == "training"; });
  EXPECT_EQ(seen.size(), old_names) << "an alias has no case here";
  for (const Alias& alias : all_aliases()) {
    EXPECT_NE(find_setting("training", alias.new_name), nullptr) << alias.old_name;
    EXPECT_EQ(find_setting("training", alias.old_name), nullptr) << alias.old_name;
    EXPECT_EQ(find_unsupported("training", alias.old_name), nullptr) << alias.old_name;
  }
}

TEST(Alias, OldNamesWorkOnTheCommandLine) {
  const LoadedConfig loaded =
      load(toml_with_eval("warmup_steps = 10"), {"training.evaluation_strategy=epoch", "training.warmup_ratio=0.25"});
  EXPECT_EQ(loaded.config.training.eval_strategy, "epoch");
  EXPECT_EQ(loaded.config.training.warmup_steps, 0.25);  // replaces the file's warmup_steps
  EXPECT_EQ(loaded.warnings.size(), 2U);
}

TEST(Alias, TheNamesOfHubAreAsGood) {
  const LoadedConfig loaded =
      load(toml_with("[hub]\npush = true\nrepo = \"me/reviews\"\nstrategy = \"end\"\nprivate = true\n"
                     "always_push = true\nrevision = \"v2\""));
  const TrainingConfig& training = loaded.config.training;
  EXPECT_TRUE(loaded.warnings.empty());
  EXPECT_TRUE(training.push_to_hub && training.hub_always_push);
  EXPECT_EQ(training.hub_model_id, "me/reviews");
  EXPECT_EQ(training.hub_strategy, "end");
  EXPECT_EQ(training.hub_private_repo, true);
  EXPECT_EQ(training.hub_revision, "v2");
  EXPECT_EQ(loaded.origins.at("training.hub_model_id").where, "run.toml:9:1");
  EXPECT_EQ(load(toml_with("hub_model_id = \"a/b\""), {"hub.repo=c/d"}).config.training.hub_model_id, "c/d");
  EXPECT_EQ(load(toml_with("hub_model_id = \"a/b\""), {"hub.repo="}).config.training.hub_model_id, std::nullopt);
  // Without a name it is that of output_dir.
  EXPECT_EQ(load(toml_with("output_dir = \"results/imdb/\"\npush_to_hub = true")).config.training.hub_model_id, "imdb");
}

TEST(Alias, MistakesInHub) {
  EXPECT_EQ(error_of(toml_with("hub_model_id = \"a/b\"\n[hub]\nrepo = \"a/c\"")),
            "run.toml:9:1: hub.repo: training.hub_model_id already sets this at run.toml:7:1 | keep only "
            "training.hub_model_id");
  EXPECT_EQ(error_of(toml_with("[hub]\nrepp = \"a/b\"")),
            "run.toml:8:1: hub.repp: unknown key | did you mean \"repo\"?");
  EXPECT_THAT(error_of(toml_with("[hubb]\npush = true")), HasSubstr("did you mean [hub]?"));
  EXPECT_THAT(error_of(toml_with("[hub]\npush = \"yes\"")), HasSubstr("training.push_to_hub: needs true or false"));
  EXPECT_THAT(error_of(toml_with("[hub]\nrepo = \"--private\"")), HasSubstr("cannot be the name of a repository"));
  EXPECT_THAT(error_of(toml_with("[hub]\nrevision = \"-x\"")), HasSubstr("cannot be the name of a branch"));
  EXPECT_THAT(error_of(toml_with("hub_token = \"hf_x\"")), HasSubstr("`hf auth login`"));
}

TEST(Alias, BothNamesAreAnError) {
  EXPECT_EQ(error_of(toml_with("warmup_steps = 10\nwarmup_ratio = 0.1")),
            "run.toml:8:1: training.warmup_ratio: training.warmup_steps already sets this at run.toml:7:1 | keep only "
            "training.warmup_steps");
  EXPECT_THAT(error_of(toml_with("no_cuda = true\nuse_cpu = true")), HasSubstr("training.no_cuda already sets this"));
  EXPECT_THAT(error_of(toml_with_eval("evaluation_strategy = \"epoch\"\nevaluate_during_training = true")),
              HasSubstr("already sets this"));
}

TEST(Alias, ValuesAreChecked) {
  EXPECT_THAT(error_of(toml_with("warmup_ratio = 1")),
              HasSubstr("training.warmup_ratio: 1 is not a share from 0 to below 1"));
  EXPECT_THAT(error_of(toml_with("warmup_ratio = nan")), HasSubstr("not a share"));
  EXPECT_THAT(error_of(toml_with("warmup_ratio = \"x\"")), HasSubstr("not a share"));
  EXPECT_THAT(error_of(toml_with("group_by_length = 1")), HasSubstr("needs true or false, not 1"));
  EXPECT_THAT(error_of(toml_with("train_sampling_strategy = \"batch_rebalance\"")),
              HasSubstr("not supported by dtrain"));
  EXPECT_THAT(error_of(toml_with("no_cuda = 1")), HasSubstr("training.use_cpu: needs true or false"));
}

TEST(Unsupported, TheTrainersDefaultIsAcceptedSilently) {
  for (const UnsupportedName& name : all_unsupported_names()) {
    std::vector<Json> values(name.accepted.begin(), name.accepted.end());
    if (!name.peer_default.is_null()) values.push_back(name.peer_default);
    if (name.other == UnsupportedName::Other::kWarn) continue;
    for (const Json& value : values) {
      const LoadedConfig loaded = load(toml_with(name.name + " = " + toml_text(value)));
      EXPECT_TRUE(loaded.warnings.empty()) << name.name;
    }
  }
}

TEST(Unsupported, OtherValuesAreRefusedByName) {
  for (const UnsupportedName& name : all_unsupported_names()) {
    EXPECT_EQ(find_setting("training", name.name), nullptr) << name.name;
    const std::string toml = toml_with(name.name + " = \"something else\"");
    if (name.other == UnsupportedName::Other::kRefuse) {
      EXPECT_EQ(error_of(toml), "run.toml:7:1: training." + name.name +
                                    ": known to the Hugging Face Trainer, not supported by dtrain: " + name.reason +
                                    " | remove the line");
    } else {
      const LoadedConfig loaded = load(toml);
      ASSERT_EQ(loaded.warnings.size(), 1U) << name.name;
      EXPECT_EQ(loaded.warnings[0], "run.toml:7:1: training." + name.name + " has no effect: " + name.reason);
    }
  }
  EXPECT_THAT(error_of(toml_with("torch_compile = true")), HasSubstr("known to the Hugging Face Trainer"));
  EXPECT_THAT(error_of(toml_with(""), {"training.deepspeed=ds.json"}), HasSubstr("known to the Hugging Face Trainer"));
}

TEST(Unsupported, NumbersCompareByValueAndBooleansDoNot) {
  EXPECT_EQ(error_of(toml_with("fsdp_min_num_params = 0")), "");
  EXPECT_EQ(error_of(toml_with("fsdp_min_num_params = 0.0")), "");
  EXPECT_NE(error_of(toml_with("torch_compile = 0")), "");
}

TEST(Unsupported, NamesWithoutEffectWarnOnlyWhenTheyAskForSomething) {
  EXPECT_EQ(
      load(toml_with("logging_dir = \"logs\"")).warnings,
      std::vector<std::string>({"run.toml:7:1: training.logging_dir has no effect: there are no trackers; log.jsonl "
                                "in output_dir holds every record"}));
  EXPECT_TRUE(load(toml_with("project = \"huggingface\"")).warnings.empty());
}

}  // namespace
}  // namespace dtrain
