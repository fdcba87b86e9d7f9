// Scores of texts against sacrebleu and rouge_score (tests/golden/record_scores.py), and merging as ranks merge them.
#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "configs/metric_names.h"
#include "core/error.h"
#include "core/json.h"
#include "tests/support/files.h"
#include "trainer/metrics/text_metric.h"

namespace dtrain {
namespace {

using testing::HasSubstr;
using Texts = std::vector<std::string>;

double value_of(const TextMetric& metric) {
  const auto values = metric.compute();
  EXPECT_EQ(values.size(), 1U);
  return values.at(0).second;
}

double score(const std::string& spec, const std::string& prediction, const Texts& references) {
  const auto metric = make_text_metric(spec);
  metric->add(prediction, references);
  return value_of(*metric);
}

TEST(TextMetric, EqualsThePackagesHoweverTheExamplesAreSplit) {
  std::size_t values = 0;
  const Json golden = read_json_file(test::test_data("golden/scores.json"));
  for (const Json& json : golden.at("texts")) {
    const auto predictions = json.at("predictions").get<Texts>();
    const auto references = json.at("references").get<std::vector<Texts>>();
    for (const auto& [spec, expected] : json.at("expected").items()) {
      const auto whole = make_text_metric(spec);
      for (std::size_t i = 0; i < predictions.size(); ++i) whole->add(predictions[i], references[i]);
      EXPECT_EQ(whole->compute()[0].first, metric_result_names(spec)[0]);
      const double value = value_of(*whole);
      EXPECT_NEAR(value, expected.get<double>(), 1e-10) << spec << " " << json;
      ++values;
      for (std::size_t parts = 1; parts <= 4; ++parts) {
        const auto merged = make_text_metric(spec);
        for (std::size_t part = parts; part-- > 0;) {
          const auto metric = make_text_metric(spec);
          for (std::size_t i = part; i < predictions.size(); i += parts) metric->add(predictions[i], references[i]);
          ASSERT_EQ(metric->state().size(), merged->state().size());
          for (std::size_t k = 0; k < merged->state().size(); ++k) merged->state()[k] += metric->state()[k];
        }
        EXPECT_EQ(value_of(*merged), value) << spec << " in " << parts << " parts";  // to the last bit
      }
    }
  }
  EXPECT_GT(values, 500U);
}

TEST(TextMetric, ValuesByHand) {
  // 3 of 4 words and 2 of 3 pairs in a row of both texts: F1 is 3/4 and 2/3.
  EXPECT_DOUBLE_EQ(score("rouge1", "a b c x", {"a b c d"}), 0.75);
  EXPECT_DOUBLE_EQ(score("rouge2", "a b c x", {"a b c d"}), 2.0 / 3);
  EXPECT_DOUBLE_EQ(score("rougeL", "a x b c", {"a b c d"}), 0.75);
  // Precisions 3/4, 2/3, 1/2 and, smoothed, 1/2 of 1; lengths are equal.
  EXPECT_NEAR(score("bleu", "a b c x", {"a b c d"}), 100 * std::pow(3.0 / 4 * 2 / 3 * 1 / 2 * 1 / 2, 0.25), 1e-12);
  // Half as long as the closest reference: exp(1 - 2).
  EXPECT_NEAR(score("bleu", "a b c d", {"a b c d e f g h"}), 100 * std::exp(-1), 1e-12);
  EXPECT_EQ(score("exact_match", "a", {"b", "a"}), 1.0);
  EXPECT_EQ(score("exact_match", "a ", {"a"}), 0.0);
}

TEST(TextMetric, TheLastSigmaOfAWordHasItsOwnLowerCase) {
  EXPECT_NEAR(score("bleu:lowercase", "ΟΔΟΣ ΣΑΣ Σ aΣ 中Σ Α’Σ! ΣΑ", {"οδος σας σ aς 中σ α’ς! σα"}), 100, 1e-10);
}

TEST(TextMetric, WithoutExamplesAndAfterReset) {
  for (const char* spec : {"rouge1", "rouge2", "rougeL", "rougeLsum", "exact_match"}) {
    const auto metric = make_text_metric(spec);
    EXPECT_TRUE(std::isnan(value_of(*metric))) << spec;
    metric->add("a b", Texts{"a b"});
    EXPECT_EQ(value_of(*metric), 1.0) << spec;
    metric->reset();
    EXPECT_TRUE(std::isnan(value_of(*metric))) << spec;
  }
  const auto bleu = make_text_metric("bleu");
  EXPECT_EQ(value_of(*bleu), 0.0);
  bleu->add("a b c d", Texts{"a b c d"});
  EXPECT_NEAR(value_of(*bleu), 100, 1e-12);
  bleu->reset();
  EXPECT_EQ(value_of(*bleu), 0.0);
}

TEST(TextMetric, IllFormedTextsAreRepaired) {
  for (const MetricName& each : metric_table()) {
    if (!predicts_texts(each.name)) continue;
    const std::string name(each.name);
    for (const char* broken : {"ab \xE6\x97", "\xFF\xC3", "\xE2\x80", "\x80 a"}) {
      const double value = score(name, broken, {broken});
      EXPECT_TRUE(value >= 0 && value <= 100) << name;
    }
  }
  EXPECT_EQ(score("exact_match", "a\xFF", {"a\uFFFD"}), 1.0);
}

TEST(TextMetric, WithoutReferenceIsADefectOfTheCaller) { EXPECT_THROW(make_text_metric("bleu")->add("a", {}), Error); }

std::string error_of(const std::string& spec) {
  try {
    (void)make_text_metric(spec);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kUsage);
    return std::string(error.what()) + " | " + error.hint();
  }
  return "no error";
}

TEST(TextMetric, NamesOfTheTable) {
  std::size_t texts = 0;
  for (const MetricName& each : metric_table()) {
    const std::string name(each.name);
    if (!predicts_texts(name)) {
      EXPECT_THAT(error_of(name), HasSubstr("does not judge texts | use one of bleu, rouge1")) << name;
      continue;
    }
    ++texts;
    EXPECT_EQ(make_text_metric(name)->compute()[0].first, name);
    for (const std::string_view variant : each.variants) {
      EXPECT_EQ(make_text_metric(fmt::format("{}:{}", name, variant))->compute()[0].first, name);
    }
  }
  EXPECT_EQ(texts, 6U);
  EXPECT_TRUE(predicts_texts("bleu:char"));
  EXPECT_FALSE(predicts_texts("f1:micro"));
  EXPECT_FALSE(predicts_texts("blue"));
  EXPECT_THAT(error_of("bleu:zh"), HasSubstr("unknown variant in \"bleu:zh\" | known: none, char, lowercase"));
  EXPECT_THAT(error_of("rouge1:char"), HasSubstr("write \"rouge1\""));
}

}  // namespace
}  // namespace dtrain
