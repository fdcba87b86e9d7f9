// Reading files and overrides: places, unknown names, precedence, origins.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "config_support.h"
#include "core/file.h"

namespace dtrain {
namespace {

using test::error_of;
using test::load;
using test::toml_with;
using test::toml_with_eval;
using testing::HasSubstr;
using testing::StartsWith;

TEST(LoadConfig, ReadsEverySection) {
  const TrainConfig config = load(R"(
    [model]
    path = "openai-community/gpt2"
    num_labels = 2
    dropout = 0
    [tokenizer]
    max_length = 256
    pad_token = "eos"
    [data]
    train = "train.jsonl"
    eval = "test.jsonl"
    train_samples = 10_000
    [training]
    learning_rate = 3e-5
    num_train_epochs = 3
    load_best_model_at_end = true
    eval_strategy = "epoch"
    save_strategy = "epoch"
    metric_for_best_model = "accuracy"
    lr_scheduler_kwargs = { num_cycles = 2 }
    [metrics]
    compute = ["accuracy", "f1:weighted"]
  )")
                                 .config;
  EXPECT_EQ(config.model.path, "openai-community/gpt2");
  EXPECT_EQ(config.model.num_labels, 2);
  EXPECT_EQ(config.model.dropout, 0.0);
  EXPECT_EQ(config.tokenizer.max_length, 256);
  EXPECT_EQ(config.tokenizer.pad_token, "eos");
  EXPECT_EQ(config.data.train_samples, 10000);
  EXPECT_EQ(config.data.eval_samples, std::nullopt);
  EXPECT_EQ(config.training.learning_rate, 3e-5);
  EXPECT_EQ(config.training.num_train_epochs, 3.0);
  EXPECT_TRUE(config.training.load_best_model_at_end);
  EXPECT_EQ(config.training.lr_scheduler_kwargs, Json({{"num_cycles", 2}}));
  EXPECT_EQ(config.metrics.compute, std::vector<std::string>({"accuracy", "f1:weighted"}));
}

TEST(LoadConfig, ReadsTheRecipes) {
  for (const char* path : {"configs/recipes/imdb.toml", "configs/recipes/demo.toml"}) {
    const LoadedConfig loaded = load_config(read_file(path), path);
    EXPECT_TRUE(loaded.warnings.empty()) << path;
    EXPECT_EQ(loaded.config.model.num_labels, 2) << path;
  }
}

TEST(LoadConfig, UnknownNamesGiveThePlaceAndTheNearestName) {
  EXPECT_EQ(error_of(toml_with("\n  learning_rat = 1e-4")),
            "run.toml:8:3: training.learning_rat: unknown key | did you mean \"learning_rate\"?");
  EXPECT_THAT(error_of(toml_with("zzzzzzzzzzzz = 1")),
              StartsWith("run.toml:7:1: training.zzzzzzzzzzzz: unknown key | docs/"));
  EXPECT_THAT(error_of(toml_with("max_length = 3")), HasSubstr("\"max_length\" belongs under [tokenizer]"));
  EXPECT_EQ(
      error_of("[training]\n[trainng]\n"),
      "run.toml:2:2: trainng: unknown section | did you mean [training]? the sections are: model, tokenizer, data, "
      "training, reliability, metrics, callbacks, hub");
  EXPECT_THAT(error_of("learning_rate = 1e-4"),
              StartsWith("run.toml:1:1: learning_rate: stands outside of all sections | write it under [training]"));
  EXPECT_THAT(error_of("evaluation_strategy = \"no\""), HasSubstr("write it under [training]"));
  EXPECT_THAT(error_of("training = 3"), HasSubstr("is a section, not a value"));
  EXPECT_THAT(error_of("[[training]]\nseed = 1"), HasSubstr("is a section, not a value | write [training] once"));
  EXPECT_THAT(error_of(toml_with("seed.a = 1")), HasSubstr("training.seed: needs a whole number, not a table"));
}

TEST(LoadConfig, TheFirstErrorOfTheFileIsReported) {
  EXPECT_THAT(error_of(toml_with("zeta = 1\nalpha = 2")), StartsWith("run.toml:7:1: training.zeta"));
}

TEST(LoadConfig, DuplicatesAreErrors) {
  EXPECT_THAT(error_of(toml_with("seed = 1\nseed = 2")), StartsWith("run.toml:8:"));
  EXPECT_THAT(error_of(toml_with("[training]\n")), StartsWith("run.toml:7:"));
}

TEST(LoadConfig, NotTomlGivesThePlace) {
  EXPECT_THAT(error_of("[model\n"), StartsWith("run.toml:1:"));
  EXPECT_THAT(error_of(toml_with("seed = ")), StartsWith("run.toml:7:"));
  EXPECT_THAT(error_of(toml_with("output_dir = results")), StartsWith("run.toml:7:"));
  EXPECT_THAT(error_of(toml_with("learning_rate = .5")), HasSubstr("not TOML"));
}

TEST(LoadConfig, RequiredSettings) {
  EXPECT_EQ(error_of(""), "run.toml: model.path: missing | write it into the file, or pass --set model.path=...");
  EXPECT_THAT(error_of("[model]\npath = \"m\""), HasSubstr("run.toml: data.train: missing"));
  EXPECT_EQ(error_of("[model]\npath = \"m\"", {"data.train=t.jsonl"}), "");
  EXPECT_THAT(error_of("[model]\npath = \"\"\n[data]\ntrain = \"t\""), HasSubstr("run.toml:2:1: model.path: is empty"));
}

TEST(LoadConfig, EvaluationNeedsData) {
  EXPECT_EQ(error_of(toml_with("eval_strategy = \"epoch\"")),
            "run.toml:7:1: training.eval_strategy: \"epoch\" needs evaluation data | set data.eval, or "
            "training.eval_strategy = \"no\"");
  EXPECT_EQ(error_of(toml_with_eval("eval_strategy = \"epoch\"")), "");
}

TEST(LoadConfig, OverridesWinOverTheFileAndLaterOnesOverEarlierOnes) {
  const LoadedConfig loaded =
      load(toml_with("learning_rate = 1e-3\nseed = 7"), {"training.learning_rate=1e-4", "training.learning_rate=2e-4"});
  EXPECT_EQ(loaded.config.training.learning_rate, 2e-4);
  EXPECT_EQ(loaded.config.training.seed, 7);
}

TEST(LoadConfig, OverridesNeedNoQuotes) {
  const auto config =
      load(toml_with(""), {"training.output_dir=results/run #1", "model.problem_type=regression", "data.labels=[]",
                           "training.bf16=true", "training.run_name=x", "training.report_to=jsonl", "data.text=123",
                           "data.label='a b'", "training.lr_scheduler_kwargs={num_cycles = 2}",
                           "metrics.compute=[\"mse\"]", "training.resume_from_checkpoint=a=b.c"})
          .config;
  EXPECT_EQ(config.training.output_dir, "results/run #1");
  EXPECT_EQ(config.model.problem_type, "regression");
  EXPECT_TRUE(config.training.bf16);
  EXPECT_EQ(config.training.report_to, std::vector<std::string>({"jsonl"}));
  EXPECT_EQ(config.data.text, "123");
  EXPECT_EQ(config.data.label, "a b");
  EXPECT_EQ(config.training.lr_scheduler_kwargs, Json({{"num_cycles", 2}}));
  EXPECT_EQ(config.metrics.compute, std::vector<std::string>({"mse"}));
  EXPECT_EQ(config.training.resume_from_checkpoint, "a=b.c");
}

TEST(LoadConfig, AnEmptyOverrideRestoresTheDefault) {
  const LoadedConfig loaded = load(toml_with("learning_rate = 1e-3\nresume_from_checkpoint = \"latest\""),
                                   {"training.learning_rate=", "training.resume_from_checkpoint="});
  EXPECT_EQ(loaded.config.training.learning_rate, 5e-5);
  EXPECT_EQ(loaded.config.training.resume_from_checkpoint, std::nullopt);
  EXPECT_EQ(loaded.origins.at("training.learning_rate").text(), "default");
  EXPECT_THAT(error_of(toml_with(""), {"data.train="}), HasSubstr("data.train: missing"));
}

TEST(LoadConfig, BadOverridesNameTheArgument) {
  const auto error = [](const std::string& argument) { return error_of(toml_with(""), {argument}); };
  EXPECT_THAT(error("training.learning_rate"), HasSubstr("not of the form section.key=value"));
  EXPECT_EQ(error("learning_rate=1"),
            "--set learning_rate=1: not of the form section.key=value | write --set "
            "training.learning_rate=...");
  EXPECT_THAT(error("=1"), HasSubstr("not of the form"));
  EXPECT_THAT(error(""), HasSubstr("not of the form"));
  EXPECT_THAT(error("training.=1"), HasSubstr("unknown key"));
  EXPECT_THAT(error(".seed=1"), HasSubstr("unknown section"));
  EXPECT_THAT(error("trainig.seed=1"), HasSubstr("did you mean [training]?"));
  EXPECT_THAT(error("training.sead=1"), HasSubstr("training.sead: unknown key | did you mean \"seed\"?"));
  EXPECT_THAT(error("training.sead="), HasSubstr("unknown key"));
  EXPECT_THAT(error("training.learning_rate=fast"),
              HasSubstr("--set training.learning_rate=fast: training.learning_rate: "
                        "needs a number, not a string (\"fast\")"));
  EXPECT_THAT(error("training.seed=1 # one"), HasSubstr("needs a whole number"));
  EXPECT_THAT(error("training.seed=1\nbf16 = true"), HasSubstr("needs a whole number"));
  EXPECT_THAT(error("training.seed=1\n[model]\npath = 1"), HasSubstr("needs a whole number"));
  EXPECT_THAT(error("metrics.compute=[accuracy]"), HasSubstr("the value is not TOML"));
  EXPECT_THAT(error("training.output_dir=\"a"), HasSubstr("the value is not TOML"));
  EXPECT_THAT(error("training.output_dir=\xFF\xFE"), HasSubstr("not valid UTF-8"));
}

TEST(LoadConfig, OriginsSayWhereAValueIsFrom) {
  const LoadedConfig loaded =
      load(toml_with_eval("  learning_rate = 1e-3\neval_strategy = \"steps\""), {"training.seed=7"});
  EXPECT_EQ(loaded.origins.at("training.learning_rate").text(), "run.toml:8:3");
  EXPECT_EQ(loaded.origins.at("training.seed").text(), "--set training.seed=7");
  EXPECT_EQ(loaded.origins.at("training.data_seed").text(), "from training.seed");
  EXPECT_EQ(loaded.origins.at("training.eval_steps").text(), "from training.logging_steps");
  EXPECT_EQ(loaded.origins.at("training.weight_decay").text(), "default");
  EXPECT_EQ(loaded.origins.size(), all_settings().size());
}

TEST(LoadConfig, IsTheSameForTheSameBytes) {
  const std::string toml = toml_with("seed = 3\nlearning_rate = 1e-3");
  const LoadedConfig a = load(toml);
  const LoadedConfig b = load(toml);
  for (const Setting& setting : all_settings()) EXPECT_EQ(setting.get(a.config), setting.get(b.config));
}

TEST(SavedConfig, AsksForNoInputs) {
  const TrainConfig config = read_saved_config("[training]\neval_strategy = \"epoch\"\nseed = 5\n", "train.toml");
  EXPECT_EQ(config.training.seed, 5);
  EXPECT_EQ(config.model.path, "");
  EXPECT_THROW((void)read_saved_config("[training]\nsead = 5\n", "train.toml"), Error);
}

}  // namespace
}  // namespace dtrain
