// Groups and freezing by name pattern; groups against torch's (tests/golden/record_optim.py).
#include <algorithm>
#include <cmath>

#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "tests/support/files.h"
#include "trainer/optim/learning_rates.h"
#include "trainer/optim/optimizer.h"

namespace dtrain {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(ParameterGroups, FollowTorchFor20Steps) {
  const Json golden = read_json_file(test::test_data("golden/optim.json")).at("parameter_groups");
  const auto base = golden.at("learning_rate").get<double>();
  std::vector<GroupOptions> groups;
  std::vector<double> peaks = {base};
  for (const Json& group : golden.at("groups")) {
    GroupOptions& added = groups.emplace_back();
    added.pattern = group.at("pattern").get<std::string>();
    if (group.contains("weight_decay")) added.weight_decay = group.at("weight_decay").get<double>();
    peaks.push_back(group.value("learning_rate", base));
  }
  const LearningRates rates({.name = "linear", .warmup_steps = 4, .total_steps = 25, .learning_rate = base}, peaks);
  int compared = 0;
  for (const Json& run : golden.at("runs")) {
    std::vector<NamedParameter> parameters;
    for (const Json& each : golden.at("parameters")) {
      at::Tensor value = at::tensor(each.at("start").get<std::vector<float>>())
                             .view(each.at("shape").get<std::vector<std::int64_t>>());
      value.requires_grad_(true);
      parameters.push_back({each.at("name").get<std::string>(), value, each.at("decay").get<bool>()});
    }
    assign_groups(parameters, groups);
    const auto optimizer =
        make_optimizer(parameters, {.name = run.at("name").get<std::string>(),
                                    .arguments = "",
                                    .adamw = {.weight_decay = golden.at("weight_decay").get<double>()}});
    const auto steps = run.at("steps").get<std::vector<std::size_t>>();
    for (std::size_t step = 0; step < 20; ++step) {
      for (std::size_t i = 0; i < parameters.size(); ++i) {
        parameters[i].value.mutable_grad() =
            at::tensor(golden.at("gradients")[step][i].get<std::vector<float>>()).view(parameters[i].value.sizes());
      }
      optimizer->step(rates.at(static_cast<std::int64_t>(step)), 1.0);
      const auto point = std::find(steps.begin(), steps.end(), step);
      if (point == steps.end()) continue;
      const Json& values = run.at("values")[static_cast<std::size_t>(point - steps.begin())];
      for (std::size_t i = 0; i < parameters.size(); ++i) {
        const auto expected = values[i].get<std::vector<float>>();
        const float* actual = parameters[i].value.const_data_ptr<float>();
        for (std::size_t j = 0; j < expected.size(); ++j) {
          EXPECT_NEAR(actual[j], expected[j], 2e-6 * std::abs(expected[j]) + 1e-8)
              << run.at("name") << " " << parameters[i].name << "[" << j << "] after step " << step;
          ++compared;
        }
      }
    }
  }
  EXPECT_GT(compared, 500);
}

std::vector<NamedParameter> parameters_named(const std::vector<std::string>& names) {
  std::vector<NamedParameter> parameters;
  for (const std::string& name : names) parameters.push_back({name, at::ones({1}), true});
  return parameters;
}

TEST(ParameterGroups, TheFirstMatchCounts) {
  std::vector<NamedParameter> parameters = parameters_named({"a.x", "a.y", "b.x", "c"});
  assign_groups(parameters, {{"a.x", 0.5}, {"*.x", std::nullopt}, {"[b-c]*", 0.0}});
  std::vector<std::size_t> groups;
  for (const NamedParameter& parameter : parameters) groups.push_back(parameter.group);
  EXPECT_THAT(groups, ElementsAre(1, 0, 2, 3));
  EXPECT_EQ(parameters[0].weight_decay, 0.5);
  EXPECT_EQ(parameters[1].weight_decay, std::nullopt);
  EXPECT_EQ(parameters[2].weight_decay, std::nullopt);
  EXPECT_EQ(parameters[3].weight_decay, 0.0);
}

template <class Function>
std::string message_of(const Function& function) {
  try {
    function();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kUsage);
    return std::string(error.what()) + " | " + error.hint();
  }
  return "no error";
}

TEST(ParameterGroups, PatternsWithoutAParameterAreErrorsWithTheNearestName) {
  const std::vector<std::string> names = {"bert.embeddings.word_embeddings.weight",
                                          "bert.encoder.layer.0.output.dense.weight", "classifier.weight"};
  const auto of = [&](const std::string& pattern) {
    return message_of([&] { (void)matching_names({pattern}, names, "training.freeze"); });
  };
  EXPECT_EQ(
      of("clasifier.weight"),
      "training.freeze: \"clasifier.weight\" matches no parameter | the names are those in model.safetensors, for "
      "example \"classifier.weight\"");
  EXPECT_THAT(of("*.layers.0.*"), HasSubstr("for example \"bert.encoder.layer.0.output.dense.weight\""));
  EXPECT_THAT(of("bert.embeddings"), HasSubstr("for example \"bert.embeddings.word_embeddings.weight\""));
  EXPECT_EQ(of("bert.encoder.layer.[0-3].*"), "no error");
  EXPECT_EQ(of("bert.encoder.layer.?.*"), "no error");
  EXPECT_EQ(matching_names({"bert.*", "*.weight"}, names, ""), std::vector<bool>({true, true, true}));
  EXPECT_EQ(matching_names({"*.dense.*"}, names, ""), std::vector<bool>({false, true, false}));

  std::vector<NamedParameter> parameters = parameters_named({"a.x", "a.y"});
  EXPECT_THAT(message_of([&] {
                assign_groups(parameters, {{"a.*", 0.1}, {"a.y", 0.2}});
              }),
              HasSubstr("group 2: all that \"a.y\" matches belongs to the groups before it"));
  parameters = parameters_named({"a.x", "a.y"});
  EXPECT_THAT(message_of([&] {
                assign_groups(parameters, {{"a.z", 0.1}});
              }),
              HasSubstr("training.parameter_groups: group 1: \"a.z\" matches no parameter"));
}

}  // namespace
}  // namespace dtrain
