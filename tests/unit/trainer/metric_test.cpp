// Metrics against scikit-learn (tests/golden/record_metrics.py), and merging as ranks merge them.
#include <algorithm>
#include <cmath>
#include <limits>

#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "core/json.h"
#include "tests/support/files.h"
#include "trainer/metrics/metric.h"

namespace dtrain {
namespace {

std::vector<float> flat(const Json& json) {
  std::vector<float> values;
  for (const Json& each : json) {
    if (each.is_array()) {
      for (const float value : flat(each)) values.push_back(value);
    } else {
      values.push_back(each.is_string() ? std::numeric_limits<float>::quiet_NaN() : each.get<float>());
    }
  }
  return values;
}

struct Case {
  explicit Case(const Json& json)
      : num_labels(json.at("num_labels").get<std::int64_t>()), multi_label(json.at("multi_label").get<bool>()) {
    const auto count = static_cast<std::int64_t>(json.at("logits").size());
    logits = at::tensor(flat(json.at("logits"))).view({count, num_labels});
    labels = at::tensor(flat(json.at("labels")));
    if (multi_label) labels = labels.view({count, num_labels});
    if (!multi_label && num_labels > 1) labels = labels.to(at::kLong);
  }
  std::int64_t num_labels;
  bool multi_label;
  at::Tensor logits;
  at::Tensor labels;
};

// Sums of floating numbers in another order; everything else merges to the last bit.
double part_tolerance(const std::string& spec) { return spec == "mse" || spec == "mae" ? 1e-12 : 0; }

TEST(Metric, EqualsScikitLearnHoweverTheExamplesAreSplit) {
  const Json golden = read_json_file(test::test_data("golden/metrics.json"));
  std::size_t values = 0;
  for (const Json& json : golden.at("cases")) {
    const Case each(json);
    const std::int64_t count = each.logits.size(0);
    for (const auto& [spec, expected] : json.at("expected").items()) {
      const auto whole = make_metric(spec, {each.num_labels, each.multi_label});
      whole->add({each.logits, each.labels});
      const auto result = whole->compute();
      ASSERT_EQ(result.size(), 1U);
      EXPECT_EQ(result[0].first, spec.substr(0, spec.find(':')));
      // NaN is a string in the file, and equal to itself here.
      const auto near = [&](double value, double wanted, double tolerance) {
        return std::isnan(wanted) ? std::isnan(value)
                                  : std::abs(value - wanted) <= tolerance * std::max(1.0, std::abs(wanted));
      };
      const double wanted = expected.is_string() ? std::numeric_limits<double>::quiet_NaN() : expected.get<double>();
      EXPECT_TRUE(near(result[0].second, wanted, 1e-12))
          << json.at("name") << " " << spec << ": " << result[0].second << " and not " << wanted;
      ++values;

      // Three ranks, the last of which may have nothing; one of them works in two batches.
      const auto merged = make_metric(spec, {each.num_labels, each.multi_label});
      for (std::int64_t rank = 0; rank < 3; ++rank) {
        const auto part = make_metric(spec, {each.num_labels, each.multi_label});
        const std::int64_t begin = count * rank / 4;
        const std::int64_t end = rank == 2 ? count : count * (rank + 1) / 4;
        const std::int64_t middle = (begin + end) / 2;
        part->add({each.logits.slice(0, begin, middle), each.labels.slice(0, begin, middle)});
        part->add({each.logits.slice(0, middle, end), each.labels.slice(0, middle, end)});
        ASSERT_EQ(part->state().counts.size(), merged->state().counts.size());
        for (std::size_t i = 0; i < part->state().counts.size(); ++i)
          merged->state().counts[i] += part->state().counts[i];
        for (std::size_t i = 0; i < part->state().sums.size(); ++i) merged->state().sums[i] += part->state().sums[i];
        // The last rank first: their order must not matter.
        merged->state().values.insert(merged->state().values.begin(), part->state().values.begin(),
                                      part->state().values.end());
        if (begin < end) {
          EXPECT_EQ(part->keeps_values(), !part->state().values.empty());
        }
      }
      EXPECT_TRUE(near(merged->compute()[0].second, result[0].second, part_tolerance(spec)))
          << json.at("name") << " " << spec;
    }
  }
  EXPECT_GT(values, 150U);
}

TEST(Metric, ResetForgetsEverything) {
  const auto metric = make_metric("f1", {2, false});
  metric->add({at::tensor({0.0F, 1.0F}).view({1, 2}), at::tensor(std::vector<std::int64_t>{1})});
  EXPECT_EQ(metric->compute()[0].second, 1.0);
  metric->reset();
  EXPECT_EQ(metric->compute()[0].second, 0.0);
}

TEST(Metric, WithoutExamples) {
  EXPECT_TRUE(std::isnan(make_metric("accuracy", {2, false})->compute()[0].second));
  EXPECT_TRUE(std::isnan(make_metric("mse", {1, false})->compute()[0].second));
  EXPECT_EQ(make_metric("f1:macro", {3, false})->compute()[0].second, 0.0);
}

TEST(Metric, LabelsThatAreNoClassAreErrors) {
  for (const std::int64_t label : {std::int64_t{-1}, std::int64_t{2}}) {
    for (const char* spec : {"accuracy", "f1:macro"}) {
      const auto metric = make_metric(spec, {2, false});
      EXPECT_THROW(metric->add({at::zeros({1, 2}), at::tensor(std::vector<std::int64_t>{label})}), Error) << spec;
    }
  }
  EXPECT_THROW(make_metric("accuracy", {2, true})->add({at::zeros({1, 2}), at::tensor({0.5F, 0.0F}).view({1, 2})}),
               Error);
}

std::string error_of(const std::string& spec, std::int64_t num_labels, bool multi_label) {
  try {
    (void)make_metric(spec, {num_labels, multi_label});
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kUsage);
    return std::string(error.what()) + " | " + error.hint();
  }
  return "no error";
}

TEST(Metric, WhatDoesNotFitNamesTheChoices) {
  EXPECT_EQ(error_of("acuracy", 2, false), "metrics.compute: unknown metric \"acuracy\" | did you mean \"accuracy\"?");
  EXPECT_NE(error_of("bleu4711", 2, false).find("known: accuracy, f1"), std::string::npos);
  EXPECT_NE(error_of("f1", 3, false).find("write \"f1:micro\", \"f1:macro\" or \"f1:weighted\""), std::string::npos);
  EXPECT_NE(error_of("recall", 2, true).find("of which several may hold"), std::string::npos);
  EXPECT_NE(error_of("f1:mean", 3, false).find("known: binary, micro, macro, weighted"), std::string::npos);
  EXPECT_NE(error_of("accuracy:micro", 3, false).find("has no variants"), std::string::npos);
  EXPECT_NE(error_of("mse", 3, false).find("for regression"), std::string::npos);
  EXPECT_NE(error_of("f1", 1, false).find("predicts a number"), std::string::npos);
}

}  // namespace
}  // namespace dtrain
