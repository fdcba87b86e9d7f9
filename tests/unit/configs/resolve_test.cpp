// The rules between settings.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "config_support.h"
#include "configs/group_settings.h"

namespace dtrain {
namespace {

using test::error_of;
using test::load;
using test::toml_with;
using test::toml_with_eval;
using testing::HasSubstr;

const char* const kBestByStep =
    "load_best_model_at_end = true\neval_strategy = \"steps\"\nsave_strategy = \"steps\"\nlogging_steps = 10\n";

TEST(Resolve, DerivesDefaults) {
  const TrainConfig plain = load(toml_with("seed = 5")).config;
  EXPECT_EQ(plain.tokenizer.path, "m");
  EXPECT_EQ(plain.training.data_seed, 5);
  EXPECT_EQ(plain.training.eval_steps, std::nullopt);
  EXPECT_EQ(plain.training.metric_for_best_model, std::nullopt);
  EXPECT_EQ(plain.training.greater_is_better, std::nullopt);
  EXPECT_EQ(plain.model.num_labels, std::nullopt);

  const TrainConfig best = load(toml_with_eval(std::string(kBestByStep) + "save_steps = 20\ndata_seed = 1")).config;
  EXPECT_EQ(best.training.data_seed, 1);
  EXPECT_EQ(best.training.eval_steps, 10.0);
  EXPECT_EQ(best.training.metric_for_best_model, "loss");
  EXPECT_EQ(best.training.greater_is_better, false);
  EXPECT_EQ(load(toml_with_eval("eval_strategy = \"steps\"\neval_steps = 0")).config.training.eval_steps, 500.0);

  const std::string labels = "[data]\ntrain = \"t\"\nlabels = [\"a\", \"b\", \"c\"]\n[model]\npath = \"m\"\n";
  EXPECT_EQ(load(labels).config.model.num_labels, 3);
}

TEST(Resolve, GreaterIsBetterFollowsTheName) {
  const std::string metrics = "[metrics]\ncompute = [\"accuracy\"]\n";
  const auto greater = [&](const std::string& metric, const std::string& more = "") {
    return load(metrics + toml_with("metric_for_best_model = \"" + metric + "\"\n" + more))
        .config.training.greater_is_better;
  };
  EXPECT_EQ(greater("accuracy"), true);
  EXPECT_EQ(greater("eval_accuracy"), true);
  EXPECT_EQ(greater("loss"), false);
  EXPECT_EQ(greater("eval_loss"), false);
  EXPECT_EQ(greater("accuracy", "greater_is_better = false"), false);
}

TEST(Resolve, MetricForBestModelMustBeComputed) {
  EXPECT_EQ(
      error_of("[metrics]\ncompute = [\"f1:macro\", \"recall\"]\n" + toml_with("metric_for_best_model = \"accuracy\"")),
      "run.toml:9:1: training.metric_for_best_model: \"accuracy\" is not computed; evaluation gives: loss, f1, recall "
      "| "
      "add it to metrics.compute, or choose another one");
  EXPECT_EQ(error_of("[metrics]\ncompute = [\"f1:macro\"]\n" + toml_with("metric_for_best_model = \"eval_f1\"")), "");
  EXPECT_THAT(error_of("[metrics]\ncompute = [\"accuracy\"]\n" +
                       toml_with("metric_for_best_model = \"accuracy\"\nprediction_loss_only = true")),
              HasSubstr("is not computed; evaluation gives: loss |"));
}

TEST(Resolve, Fp16AndBf16Exclude) {
  EXPECT_EQ(error_of(toml_with("bf16 = true\nfp16 = true")),
            "run.toml:8:1: training.fp16: fp16 and bf16 cannot both be true | set one of them to false");
  EXPECT_THAT(error_of(toml_with("bf16 = true"), {"training.fp16=true"}), HasSubstr("--set training.fp16=true"));
}

TEST(Resolve, StepsOfZero) {
  EXPECT_THAT(error_of(toml_with("logging_steps = 0")),
              HasSubstr("run.toml:7:1: training.logging_steps: logging_strategy"));
  EXPECT_THAT(error_of(toml_with("save_steps = 0")), HasSubstr("training.save_steps: save_strategy"));
  EXPECT_THAT(error_of(toml_with("max_steps = 0")), HasSubstr("0 steps would train nothing"));
  EXPECT_EQ(
      error_of(toml_with("logging_steps = 0\nlogging_strategy = \"no\"\nsave_steps = 0\nsave_strategy = \"epoch\"")),
      "");
  EXPECT_THAT(error_of(toml_with_eval("eval_strategy = \"steps\"\nlogging_steps = 0\nlogging_strategy = \"no\"")),
              HasSubstr("needs eval_steps or logging_steps above 0"));
}

TEST(Resolve, PrefetchNeedsWorkers) {
  EXPECT_THAT(error_of(toml_with("dataloader_prefetch_factor = 2")), HasSubstr("needs dataloader_num_workers > 0"));
  EXPECT_EQ(error_of(toml_with("dataloader_prefetch_factor = 2\ndataloader_num_workers = 1")), "");
}

TEST(Resolve, NoReportsStandAlone) {
  EXPECT_THAT(error_of(toml_with("report_to = [\"none\", \"jsonl\"]")), HasSubstr("\"none\" cannot stand beside"));
  EXPECT_EQ(error_of(toml_with("report_to = [\"jsonl\", \"tensorboard\"]")), "");
}

TEST(Resolve, LoadBestNeedsEqualStrategies) {
  EXPECT_THAT(
      error_of(toml_with_eval("load_best_model_at_end = true\neval_strategy = \"epoch\"")),
      HasSubstr("run.toml:8:1: training.load_best_model_at_end: needs eval_strategy and save_strategy to be equal (or "
                "save_strategy \"best\"); they are \"epoch\" and \"steps\""));
  EXPECT_THAT(error_of(toml_with_eval("load_best_model_at_end = true\nsave_strategy = \"no\"")),
              HasSubstr("both strategies are \"no\""));
  EXPECT_EQ(
      error_of(toml_with_eval("load_best_model_at_end = true\neval_strategy = \"epoch\"\nsave_strategy = \"epoch\"")),
      "");
  // Steps do not matter where the strategy is by epoch.
  EXPECT_EQ(error_of(toml_with_eval("load_best_model_at_end = true\neval_strategy = \"epoch\"\nsave_strategy = "
                                    "\"epoch\"\neval_steps = 7\nsave_steps = 10")),
            "");
}

TEST(Resolve, LoadBestNeedsSaveStepsAtEvaluations) {
  const auto error = [](const char* save, const char* eval) {
    return error_of(toml_with_eval(std::string(kBestByStep) + "save_steps = " + save + "\neval_steps = " + eval));
  };
  EXPECT_EQ(error("500", "500"), "");
  EXPECT_EQ(error("1000", "250"), "");
  EXPECT_EQ(error("1", "1"), "");
  EXPECT_THAT(error("500", "300"),
              HasSubstr("run.toml:12:1: training.save_steps: save_steps 500 is not a multiple of eval_steps 300"));
  EXPECT_THAT(error("250", "500"), HasSubstr("not a multiple"));
  EXPECT_EQ(error("0.5", "0.25"), "");
  // 0.3 % 0.1 is not 0 in binary, but 300000 % 100000 is.
  EXPECT_EQ(error("0.3", "0.1"), "");
  EXPECT_EQ(error("0.6", "0.2"), "");
  EXPECT_THAT(error("0.3", "0.2"), HasSubstr("not a multiple"));
  EXPECT_THAT(error("100", "0.1"), HasSubstr("one is a share of all steps, the other a number of steps"));
  EXPECT_THAT(error("0.5", "100"), HasSubstr("one is a share of all steps"));
}

TEST(Resolve, SaveStrategyBest) {
  const std::string best = "save_strategy = \"best\"\n";
  EXPECT_EQ(error_of(toml_with_eval(best + "eval_strategy = \"epoch\"\nmetric_for_best_model = \"loss\"")), "");
  EXPECT_EQ(error_of(toml_with_eval(best + "eval_strategy = \"epoch\"\nload_best_model_at_end = true")), "");
  EXPECT_THAT(error_of(toml_with_eval(best + "eval_strategy = \"epoch\"")),
              HasSubstr("\"best\" needs metric_for_best_model"));
  EXPECT_THAT(error_of(toml_with_eval(best + "metric_for_best_model = \"loss\"")),
              HasSubstr("eval_strategy is \"no\""));
  EXPECT_THAT(error_of(toml_with_eval(best + "load_best_model_at_end = true")), HasSubstr("eval_strategy is \"no\""));
}

TEST(Resolve, LabelsAndProblemTypeFit) {
  const auto error = [](const std::string& model, const std::string& data, const std::string& metrics = "") {
    return error_of("[model]\npath = \"m\"\n" + model + "\n[data]\ntrain = \"t\"\n" + data + "\n[metrics]\n" + metrics);
  };
  EXPECT_THAT(error("num_labels = 2", "labels = [\"a\", \"b\", \"c\"]"),
              HasSubstr("run.toml:3:1: model.num_labels: model.num_labels is 2, but data.labels names 3"));
  EXPECT_EQ(error("num_labels = 3", "labels = [\"a\", \"b\", \"c\"]"), "");
  EXPECT_THAT(error("", "labels = [\"a\", \"a\"]"), HasSubstr("contains \"a\" twice"));
  EXPECT_THAT(error("problem_type = \"single_label_classification\"\nnum_labels = 1", ""), HasSubstr("a single class"));
  EXPECT_THAT(error("problem_type = \"regression\"", "labels = [\"a\", \"b\"]"), HasSubstr("not classes with names"));
  EXPECT_THAT(error("problem_type = \"regression\"", "", "compute = [\"mse\", \"f1\"]"),
              HasSubstr("run.toml:8:1: metrics.compute: \"f1\" does not judge a regression"));
  EXPECT_EQ(error("problem_type = \"regression\"\nnum_labels = 1", "", "compute = [\"mse\"]"), "");
}

TEST(Resolve, APluginOpensTheNamesOfItsParts) {
  const auto with = [](const std::string& model, const std::string& collator) {
    return "[model]\n" + model + "\n[tokenizer]\npath = \"t\"\n[data]\ntrain = \"t\"\neval = \"e\"\ncollator = \"" +
           collator +
           "\"\n[metrics]\ncompute = [\"mine\"]\n[training]\neval_strategy = \"epoch\"\n"
           "metric_for_best_model = \"mine\"\n";
  };
  const TrainConfig config = load(with("plugin = \"libmine.so\"\nname = \"cnn\"", "word_dropout")).config;
  EXPECT_EQ(config.model.path, "");
  EXPECT_EQ(config.data.collator, "word_dropout");
  EXPECT_EQ(config.training.greater_is_better, true);
  EXPECT_THAT(error_of(with("name = \"cnn\"", "auto")),
              HasSubstr("run.toml:2:1: model.name: names a model of a plugin"));
  EXPECT_THAT(error_of(with("plugin = \"libmine.so\"", "auto")), HasSubstr("model.path: missing"));
  EXPECT_THAT(error_of("[model]\nplugin = \"p\"\nname = \"cnn\"\n[data]\ntrain = \"t\"\n"),
              HasSubstr("tokenizer.path: missing"));
  EXPECT_THAT(error_of(with("path = \"m\"", "auto")), HasSubstr("\"mine\" is not a known metric"));
  EXPECT_THAT(error_of("[data]\ntrain = \"t\"\ncollator = \"pading\"\n[model]\npath = \"m\"\n"),
              HasSubstr("run.toml:3:1: data.collator: \"pading\" is not a known choice | did you mean \"padding\"?"));
  // A collator of dtrain must fit the task, plugin or not.
  EXPECT_THAT(error_of(with("plugin = \"libmine.so\"\nname = \"cnn\"", "seq2seq")), HasSubstr("does not fit the task"));
}

TEST(Resolve, AProgramWithPartsOfItsOwnNeedsNoneInTheFile) {
  const std::string toml = "[training]\neval_strategy = \"epoch\"\nmetric_for_best_model = \"mine\"\n";
  EXPECT_THAT(error_of(toml), HasSubstr("mine"));
  EXPECT_EQ(load_config(toml, "run.toml", {}, Parts::kOwn).config.training.metric_for_best_model, "mine");
}

TEST(Resolve, IsIdempotentAndWorksOnAConfigBuiltByHand) {
  TrainConfig config;
  config.training.load_best_model_at_end = true;
  config.training.eval_strategy = "epoch";
  config.training.save_strategy = "epoch";
  Origins origins;
  resolve(config, origins);
  EXPECT_EQ(config.training.metric_for_best_model, "loss");
  EXPECT_EQ(config.tokenizer.path, std::nullopt);
  EXPECT_EQ(origins.at("training.metric_for_best_model").kind, Origin::Kind::kDerived);
  TrainConfig again = config;
  Origins none;
  resolve(again, none);
  EXPECT_TRUE(none.empty());

  config.training.fp16 = config.training.bf16 = true;
  EXPECT_THROW(resolve(config, origins), Error);
}

TEST(Resolve, SchedulesThatFollowAMetricNeedEvaluations) {
  const std::string plateau = "lr_scheduler_type = \"reduce_lr_on_plateau\"\n";
  EXPECT_EQ(error_of(toml_with(plateau)),
            "run.toml:7:1: training.lr_scheduler_type: \"reduce_lr_on_plateau\" follows the evaluations, and "
            "eval_strategy is \"no\" | set training.eval_strategy to \"steps\" or \"epoch\"");
  const LoadedConfig loaded = load(toml_with_eval(plateau + "eval_strategy = \"epoch\""));
  EXPECT_EQ(loaded.config.training.metric_for_best_model, "loss");
  EXPECT_EQ(loaded.config.training.greater_is_better, false);
  EXPECT_EQ(loaded.origins.at("training.metric_for_best_model").where, "training.lr_scheduler_type");
  EXPECT_THAT(error_of(toml_with_eval(plateau + "eval_strategy = \"epoch\"\nwarmup_steps = 10")),
              HasSubstr("run.toml:10:1: training.warmup_steps: \"reduce_lr_on_plateau\" has no warm-up"));
  const std::string accuracy =
      "[metrics]\ncompute = [\"accuracy\"]\n" + toml_with_eval(
                                                    "lr_scheduler_type = \"greedy\"\neval_strategy = \"epoch\"\n"
                                                    "metric_for_best_model = \"accuracy\"\n");
  EXPECT_THAT(error_of(accuracy), HasSubstr("mode \"min\" of \"greedy\" contradicts greater_is_better = true | set "
                                            "training.lr_scheduler_kwargs = { mode = \"max\" }"));
  EXPECT_EQ(error_of(accuracy + "lr_scheduler_kwargs = { mode = \"max\" }"), "");
  EXPECT_EQ(error_of(accuracy + "greater_is_better = false"), "");
}

TEST(Resolve, ParameterGroups) {
  const LoadedConfig loaded =
      load(toml_with("learning_rate = 1e-4\n[[training.parameter_groups]]\npattern = \"classifier.*\"\n"
                     "learning_rate = 1e-3\n[[training.parameter_groups]]\npattern = \"*.layer.[0-3].*\"\n"
                     "weight_decay = 0\n"));
  const std::vector<ParameterGroup> groups = parameter_groups(loaded.config.training.parameter_groups);
  ASSERT_EQ(groups.size(), 2U);
  EXPECT_EQ(groups[0].pattern, "classifier.*");
  EXPECT_EQ(groups[0].learning_rate, 1e-3);
  EXPECT_EQ(groups[0].weight_decay, std::nullopt);
  EXPECT_EQ(groups[1].pattern, "*.layer.[0-3].*");
  EXPECT_EQ(groups[1].learning_rate, std::nullopt);
  EXPECT_EQ(groups[1].weight_decay, 0.0);

  const auto of = [](const std::string& table) { return error_of(toml_with("parameter_groups = [" + table + "]")); };
  EXPECT_THAT(of("{ patern = \"a\", weight_decay = 0 }"),
              HasSubstr("run.toml:7:1: training.parameter_groups: group 1: unknown key \"patern\" | did you mean "
                        "\"pattern\"?"));
  EXPECT_THAT(of("{ pattern = \"a\", weight_decay = 0 }, { weight_decay = 0 }"), HasSubstr("group 2: needs a pattern"));
  EXPECT_THAT(of("{ pattern = \"\", weight_decay = 0 }"), HasSubstr("group 1: needs a pattern"));
  EXPECT_THAT(of("{ pattern = \"a\" }"), HasSubstr("sets neither learning_rate nor weight_decay"));
  EXPECT_THAT(of("{ pattern = \"a\", learning_rate = -1 }"), HasSubstr("is not a number from 0 to 1000000"));
  EXPECT_THAT(of("{ pattern = \"a\", learning_rate = \"1e-3\" }"), HasSubstr("is not a number"));
  EXPECT_EQ(load(toml_with(""), {"training.parameter_groups=[{ pattern = \"a\", learning_rate = 1 }]"})
                .config.training.parameter_groups.size(),
            1U);
}

}  // namespace
}  // namespace dtrain
