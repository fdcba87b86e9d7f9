// Evaluation: exact for any number of examples and ranks, to the last digit.
#include <cmath>
#include <mutex>

#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include "tests/unit/trainer/loop_support.h"
#include "trainer/evaluation.h"
#include "trainer/exact_sum.h"

namespace dtrain::test {
namespace {

EvaluationResult evaluate_tiny(std::int64_t examples, int ranks, std::int64_t batch) {
  EvaluationResult result;
  run_thread_ranks(ranks, [&](ThreadRank& rank) {
    TinyModel model(5);
    model.train();
    std::vector<std::unique_ptr<Metric>> metrics;
    metrics.push_back(make_metric("accuracy", {2, false}));
    metrics.push_back(make_metric("f1:weighted", {2, false}));
    const EvaluationResult mine = evaluate(model, std::make_shared<TinyDataset>(examples), tiny_collator(), metrics,
                                           rank.host, {.batch_size = batch});
    EXPECT_TRUE(model.is_training());
    if (rank.world.is_first()) result = mine;
  });
  return result;
}

TEST(LoopEvaluation, IsTheSameForEveryWorldSize) {
  at::set_num_threads(1);
  for (std::int64_t examples = 1; examples <= 200; ++examples) {
    const EvaluationResult one = evaluate_tiny(examples, 1, 3);
    EXPECT_EQ(one.examples, examples);
    EXPECT_EQ(one.batches, (examples + 2) / 3);
    for (int ranks = 2; ranks <= 4; ++ranks) {
      const EvaluationResult many = evaluate_tiny(examples, ranks, 3);
      EXPECT_EQ(many.examples, examples);
      EXPECT_EQ(many.loss, one.loss) << examples << " examples, " << ranks << " ranks";
      EXPECT_EQ(many.metrics, one.metrics) << examples << " examples, " << ranks << " ranks";
    }
  }
}

TEST(LoopEvaluation, IsTheMeanOverExamples) {
  at::set_num_threads(1);
  const TinyDataset data(17);
  TinyModel model(5);
  const c10::AutoGradMode no_gradient(false);
  double sum = 0;
  double right = 0;
  for (std::int64_t i = 0; i < data.size(); ++i) {
    const Example example = data.get(i);
    Batch batch = tiny_collator()->collate(std::span(&example, 1), {});
    batch.example_weight = {1.0F};
    const ModelOutput output = model.forward(batch);
    sum += output.loss_each.item<double>();
    right += output.logits.argmax(1).item<std::int64_t>() == static_cast<std::int64_t>(example.labels[0]) ? 1 : 0;
  }
  const EvaluationResult result = evaluate_tiny(17, 3, 2);
  EXPECT_NEAR(result.loss, sum / 17, 1e-7);
  EXPECT_EQ(result.metrics[0], (std::pair<std::string, double>("accuracy", right / 17)));
}

TEST(LoopEvaluation, ExactSumDoesNotDependOnOrderOrSplit) {
  const std::vector<double> terms = {0.1, 1e9, -3.5e-9, 0.7F, 123456.789F, -1e9, 2e-18, 5.0};
  ExactSum forward, backward, left, right;
  for (const double term : terms) forward.add(term);
  for (auto term = terms.rbegin(); term != terms.rend(); ++term) backward.add(*term);
  for (std::size_t i = 0; i < terms.size(); ++i) (i % 3 == 0 ? left : right).add(terms[i]);
  ExactSum::Words words = left.words();
  const ExactSum::Words other = right.words();
  for (std::size_t i = 0; i < words.size(); ++i) words[i] += other[i];
  EXPECT_EQ(forward.value(), backward.value());
  EXPECT_EQ(forward.value(), ExactSum::from_words(words).value());
  EXPECT_NEAR(forward.value(), 123462.589, 1e-2);
  forward.add(std::nan(""));
  EXPECT_TRUE(std::isnan(ExactSum::from_words(forward.words()).value()));
  ExactSum negative;
  negative.add(-2.25);
  negative.add(1.0);
  EXPECT_EQ(ExactSum::from_words(negative.words()).value(), -1.25);
}

}  // namespace
}  // namespace dtrain::test
