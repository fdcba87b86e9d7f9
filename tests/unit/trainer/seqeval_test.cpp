// Entities of tag sequences against seqeval (tests/golden/record_scores.py), and merging as ranks merge them.
#include <cmath>
#include <limits>

#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "configs/metric_names.h"
#include "core/error.h"
#include "core/json.h"
#include "tests/support/files.h"
#include "trainer/metrics/metric.h"

namespace dtrain {
namespace {

using testing::HasSubstr;
using Names = std::vector<std::string>;
using Sentences = std::vector<std::vector<std::int64_t>>;
using Values = std::vector<std::pair<std::string, double>>;

MetricScope scope_of(const Names& names) {
  return {.num_labels = static_cast<std::int64_t>(names.size()), .tag_names = names};
}

// One batch of every `step`-th sentence from `first` on.
void add(Metric& metric, const Names& names, const Sentences& predicted, const Sentences& truth, std::size_t first = 0,
         std::size_t step = 1) {
  std::vector<std::int64_t> lengths;
  std::vector<std::int64_t> said;
  std::vector<std::int64_t> labels;
  for (std::size_t i = first; i < truth.size(); i += step) {
    said.insert(said.end(), predicted[i].begin(), predicted[i].end());
    labels.insert(labels.end(), truth[i].begin(), truth[i].end());
    lengths.push_back(static_cast<std::int64_t>(truth[i].size()));
  }
  if (lengths.empty()) return;
  const auto count = static_cast<std::int64_t>(names.size());
  const at::Tensor logits = at::zeros({static_cast<std::int64_t>(said.size()), count});
  for (std::size_t i = 0; i < said.size(); ++i) {
    logits.mutable_data_ptr<float>()[static_cast<std::int64_t>(i) * count + said[i]] = 1;
  }
  metric.add({.logits = logits, .labels = at::tensor(labels), .label_counts = lengths});
}

bool same(double value, double wanted) { return value == wanted || (std::isnan(value) && std::isnan(wanted)); }

TEST(Seqeval, EqualsThePackageHoweverTheSentencesAreSplit) {
  std::size_t cases = 0;
  const Json golden = read_json_file(test::test_data("golden/scores.json"));
  for (const Json& json : golden.at("tags")) {
    const auto names = json.at("labels").get<Names>();
    const auto predicted = json.at("predicted").get<Sentences>();
    const auto truth = json.at("truth").get<Sentences>();
    for (const auto& [spec, expected] : json.at("expected").items()) {
      const auto whole = make_metric(spec, scope_of(names));
      add(*whole, names, predicted, truth);
      const Values values = whole->compute();
      ASSERT_EQ(values.size(), 4U);
      for (std::size_t k = 0; k < values.size(); ++k) {
        EXPECT_EQ(values[k].first, metric_result_names(spec)[k]);
        const double wanted =
            expected[k].is_string() ? std::numeric_limits<double>::quiet_NaN() : expected[k].get<double>();
        EXPECT_TRUE(same(values[k].second, wanted) || std::abs(values[k].second - wanted) < 1e-12)
            << spec << " " << values[k].first << " " << values[k].second << " " << json;
      }
      ++cases;
      for (std::size_t parts = 1; parts <= 4; ++parts) {
        const auto merged = make_metric(spec, scope_of(names));
        for (std::size_t part = parts; part-- > 0;) {
          const auto metric = make_metric(spec, scope_of(names));
          add(*metric, names, predicted, truth, part, parts);
          for (std::size_t i = 0; i < merged->state().counts.size(); ++i) {
            merged->state().counts[i] += metric->state().counts[i];
          }
          EXPECT_TRUE(metric->state().sums.empty() && metric->state().values.empty());
        }
        for (std::size_t k = 0; k < values.size(); ++k) {
          EXPECT_TRUE(same(merged->compute()[k].second, values[k].second)) << spec << " in " << parts << " parts";
        }
      }
    }
  }
  EXPECT_GT(cases, 300U);
}

TEST(Seqeval, ValuesByHand) {
  const Names names = {"O", "B-PER", "I-PER", "B-LOC", "I-LOC"};
  // Truth: PER 0-1, LOC 3, LOC 4-5. Predicted: PER 0-1, LOC 3-5 (an I without a B begins one, another goes on).
  const Sentences truth = {{1, 2, 0, 3, 3, 4}};
  const Sentences predicted = {{1, 2, 0, 4, 4, 4}};
  const auto lenient = make_metric("seqeval", scope_of(names));
  add(*lenient, names, predicted, truth);
  const Values values = lenient->compute();
  EXPECT_DOUBLE_EQ(values[0].second, 1.0 / 2);
  EXPECT_DOUBLE_EQ(values[1].second, 1.0 / 3);
  EXPECT_DOUBLE_EQ(values[2].second, 2.0 / 5);
  EXPECT_DOUBLE_EQ(values[3].second, 4.0 / 6);
  // Strictly the I without a B is nothing.
  const auto strict = make_metric("seqeval:strict", scope_of(names));
  add(*strict, names, predicted, truth);
  EXPECT_DOUBLE_EQ(strict->compute()[0].second, 1.0);
  strict->reset();
  EXPECT_EQ(strict->compute()[0].second, 0.0);
  EXPECT_TRUE(std::isnan(strict->compute()[3].second));
}

TEST(Seqeval, AnEntityEndsWithItsSentence) {
  const Names names = {"O", "B-PER", "I-PER"};
  const auto metric = make_metric("seqeval", scope_of(names));
  add(*metric, names, {{1}, {2}}, {{1}, {0}});
  EXPECT_DOUBLE_EQ(metric->compute()[0].second, 1.0 / 2);
  EXPECT_DOUBLE_EQ(metric->compute()[1].second, 1.0);
}

std::string error_of(const std::string& spec, const MetricScope& scope) {
  try {
    (void)make_metric(spec, scope);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kUsage);
    return std::string(error.what()) + " | " + error.hint();
  }
  return "no error";
}

TEST(Seqeval, WhatDoesNotFitIsAnError) {
  EXPECT_THAT(error_of("seqeval", {.num_labels = 3}), HasSubstr("does not judge what this model predicts"));
  EXPECT_THAT(error_of("seqeval:binary", scope_of({"O", "B-A"})), HasSubstr("known: micro, macro, weighted, strict"));
  EXPECT_THAT(error_of("seqeval:strict", scope_of({"O", "PER"})),
              HasSubstr("\"seqeval:strict\" cannot read the label \"PER\" | all labels must begin with B-, I- or O"));
  EXPECT_THAT(error_of("seqeval", scope_of({"O", ""})), HasSubstr("give every label a name"));
}

TEST(Seqeval, LengthsMustFitTheLabels) {
  const auto metric = make_metric("seqeval", scope_of({"O", "B-A"}));
  const std::vector<std::int64_t> lengths = {1, 1};
  EXPECT_THROW(metric->add({.logits = at::zeros({3, 2}),
                            .labels = at::tensor(std::vector<std::int64_t>{0, 0, 0}),
                            .label_counts = lengths}),
               Error);
}

}  // namespace
}  // namespace dtrain
