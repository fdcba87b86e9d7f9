// Round trip, digest, differences, print-out, help and documentation.
#include "configs/config_text.h"

#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "config_support.h"
#include "core/file.h"

namespace dtrain {
namespace {

using test::load;
using test::toml_with;
using test::toml_with_eval;
using testing::HasSubstr;

// Valid, and stays so when any one setting changes.
TrainConfig base_config() {
  return load("[metrics]\ncompute = [\"accuracy\"]\n" +
              toml_with_eval("eval_strategy = \"steps\"\nsave_steps = 100\neval_steps = 100\nlogging_steps = 20\n"
                             "dataloader_num_workers = 2\nmetric_for_best_model = \"loss\"\n"))
      .config;
}

// `base` with another valid value of `setting`; nothing when the setting has only one.
std::optional<TrainConfig> with_other_value(const TrainConfig& base, const Setting& setting) {
  if (setting.constraint.kind == Constraint::Kind::kOnly) return std::nullopt;
  Json value = test::other_value(setting);
  if (value.is_null()) return std::nullopt;
  if (setting.name() == "training.metric_for_best_model") value = "eval_accuracy";
  if (setting.name() == "data.random_replace_prob") value = 0.15;  // with mask_replace_prob no more than 1
  if (setting.name() == "data.mask_replace_prob") value = 0.7;
  if (setting.name() == "data.eval_fraction") return std::nullopt;  // contradicts data.eval
  // Metrics and collators fit one task only.
  if (setting.name() == "model.task" || setting.name() == "data.collator") return std::nullopt;
  if (setting.name() == "model.name") return std::nullopt;  // needs a plugin
  const bool generates = setting.key == "predict_with_generate" || setting.key.starts_with("generation_");
  if (generates) return std::nullopt;  // fits one task only
  TrainConfig config = base;
  setting.set(config, value);
  if (setting.get(config) == setting.get(base)) {  // the base already has it
    setting.set(config, setting.default_value);
  }
  return config;
}

TEST(ToToml, RoundTripsEverySetting) {
  const TrainConfig base = base_config();
  int changed = 0;
  for (const Setting& setting : all_settings()) {
    const auto config = with_other_value(base, setting);
    if (!config) continue;
    ++changed;
    TrainConfig resolved = *config;
    Origins origins;
    resolve(resolved, origins);
    const LoadedConfig loaded = load_config(to_toml(resolved), "train.toml");
    for (const Difference& difference : diff(resolved, loaded.config)) {
      ADD_FAILURE() << setting.name() << " changes " << difference.name << ": " << difference.a << " to "
                    << difference.b;
    }
    EXPECT_EQ(setting.get(loaded.config), setting.get(*config)) << setting.name();
    EXPECT_EQ(config_digest(loaded.config), config_digest(resolved)) << setting.name();
    EXPECT_TRUE(loaded.warnings.empty());
  }
  EXPECT_GE(changed, static_cast<int>(all_settings().size()) - 12);
}

TEST(ToToml, RoundTripsTheDefaultsOfAProgram) {
  TrainConfig config;
  Origins origins;
  resolve(config, origins);
  EXPECT_TRUE(diff(config, read_saved_config(to_toml(config), "train.toml")).empty());
}

TEST(ToToml, KeepsTheKindOfScheduleArguments) {
  const TrainConfig config = load(toml_with("lr_scheduler_kwargs = { a = 2, b = 2.0, c = 1e-7 }")).config;
  EXPECT_THAT(to_toml(config), HasSubstr("lr_scheduler_kwargs = { a = 2, b = 2.0, c = 1e-07 }\n"));
  const Json kwargs = load(to_toml(config)).config.training.lr_scheduler_kwargs;
  EXPECT_TRUE(kwargs.at("a").is_number_integer());
  EXPECT_TRUE(kwargs.at("b").is_number_float());
}

TEST(ConfigDigest, DiffersForEverySetting) {
  const TrainConfig base = base_config();
  std::set<std::string> digests = {config_digest(base)};
  for (const Setting& setting : all_settings()) {
    const auto config = with_other_value(base, setting);
    if (!config) continue;
    EXPECT_TRUE(digests.insert(config_digest(*config)).second) << setting.name();
  }
  EXPECT_EQ(config_digest(base), config_digest(base_config()));
}

TEST(ConfigDigest, TellsNotSetFromEmptyAndSimilarTexts) {
  TrainConfig a = base_config();
  TrainConfig b = a;
  a.data.labels = {"x\", \"y"};
  b.data.labels = {"x", "y"};
  EXPECT_NE(config_digest(a), config_digest(b));
  TrainConfig c = base_config();
  c.model.num_labels = 0;
  EXPECT_NE(config_digest(c), config_digest(base_config()));
}

TEST(Diff, ListsSettingsWithClassAndValues) {
  const TrainConfig a = base_config();
  TrainConfig b = a;
  b.training.seed = 7;
  b.training.learning_rate = 1e-4;
  b.training.output_dir = "other";
  b.model.num_labels = 3;
  const std::vector<Difference> differences = diff(a, b);
  ASSERT_EQ(differences.size(), 4U);
  EXPECT_EQ(differences[0].name, "model.num_labels");
  EXPECT_EQ(differences[0].a, "not set");
  EXPECT_EQ(differences[0].b, "3");
  EXPECT_EQ(differences[1].name, "training.output_dir");
  EXPECT_EQ(differences[1].setting_class, SettingClass::kRuntime);
  EXPECT_EQ(differences[1].b, "\"other\"");
  EXPECT_EQ(differences[2].name, "training.learning_rate");
  EXPECT_EQ(differences[2].setting_class, SettingClass::kSchedule);
  EXPECT_EQ(differences[2].a, "5e-05");
  EXPECT_EQ(differences[3].name, "training.seed");
  EXPECT_EQ(differences[3].setting_class, SettingClass::kIdentity);
  EXPECT_TRUE(diff(a, a).empty());
}

TEST(Diff, SeesEverySetting) {
  const TrainConfig base = base_config();
  for (const Setting& setting : all_settings()) {
    const auto config = with_other_value(base, setting);
    if (!config) continue;
    const auto differences = diff(base, *config);
    ASSERT_EQ(differences.size(), 1U) << setting.name();
    EXPECT_EQ(differences[0].name, setting.name());
    EXPECT_EQ(differences[0].setting_class, setting.setting_class);
  }
}

TEST(PrintConfig, IsTheResolvedFileWithOrigins) {
  const LoadedConfig loaded =
      load(toml_with_eval("learning_rate = 1e-3\neval_strategy = \"steps\""), {"training.seed=7"});
  const std::string text = print_config(loaded);
  EXPECT_THAT(text, HasSubstr("\nlearning_rate = 0.001                            # run.toml:8:1\n"));
  EXPECT_THAT(text, HasSubstr("\nseed = 7                                         # --set training.seed=7\n"));
  EXPECT_THAT(text, HasSubstr("\neval_steps = 500                                 # from training.logging_steps\n"));
  EXPECT_THAT(text, HasSubstr("\nweight_decay = 0                                 # default\n"));
  EXPECT_THAT(text, HasSubstr("\n# save_total_limit is not set                    # default\n"));
  EXPECT_TRUE(diff(loaded.config, load_config(text, "printed.toml").config).empty());
}

TEST(SettingsHelp, DescribesEverySettingOfASection) {
  for (const SettingSection& section : all_sections()) {
    const std::string text = settings_help(section.name);
    for (const Setting& setting : all_settings()) {
      const bool named = text.find("\n  " + setting.key + " = ") != std::string::npos;
      EXPECT_EQ(named, find_setting(section.name, setting.key) != nullptr) << section.name << " " << setting.key;
    }
  }
  EXPECT_THAT(settings_help("training"),
              HasSubstr("\n  learning_rate = 5e-05  (number: 0 to 1000000)\n      Peak learning rate.\n"));
  EXPECT_THROW((void)settings_help("nothing"), Error);
}

TEST(SettingsMarkdown, ThePageIsUpToDate) {
  EXPECT_TRUE(read_file("docs/settings.md") == settings_markdown())
      << "docs/settings.md is not what configs/settings.def says; run: dtrain config --markdown > docs/settings.md";
  EXPECT_TRUE(read_file("docs/from-trainingarguments.md") == arguments_markdown())
      << "docs/from-trainingarguments.md is not what configs/ says; run: dtrain config --arguments > "
         "docs/from-trainingarguments.md";
}

TEST(SettingsMarkdown, TablesHaveWholeRows) {
  const std::string page = settings_markdown();
  for (const Setting& setting : all_settings()) EXPECT_THAT(page, HasSubstr("\n| `" + setting.key + "` | "));
  EXPECT_THAT(page, HasSubstr("| `evaluation_strategy` | `eval_strategy` |"));
  EXPECT_THAT(page, HasSubstr("| `torch_compile` | `false` | error |"));
}

}  // namespace
}  // namespace dtrain
