// BERT and GPT-2 against transformers (tests/golden/record_models.py) and, for GPT-2, against the trace of trained
// weights.
#include <cmath>
#include <string>
#include <vector>

#include <ATen/ops/equal.h>
#include <ATen/ops/tensor.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include "tests/unit/trainer/models_support.h"
#include "trainer/models/gpt2.h"
#include "trainer/precision.h"

namespace dtrain {
namespace {

using test::golden_cases;
using test::largest_difference;
using test::recorded_batch;

ProblemType problem_type_of(const Json& recorded) {
  const std::string name = recorded.at("problem_type");
  return name == "regression"
             ? ProblemType::kRegression
             : (name == "multi_label_classification" ? ProblemType::kMultiLabel : ProblemType::kSingleLabel);
}

class ModelTest : public testing::TestWithParam<std::string> {
 protected:
  [[nodiscard]] ModelOptions options() const {
    ModelOptions options;
    options.folder = test::model_folder(GetParam());
    return options;
  }
  [[nodiscard]] const Json& cases() const { return golden_cases(GetParam()); }
  // A batch with padding on the right, single label.
  [[nodiscard]] Batch batch() const { return recorded_batch(cases().at(0)); }
};

INSTANTIATE_TEST_SUITE_P(All, ModelTest, testing::Values("bert", "gpt2"), [](const auto& each) { return each.param; });

TEST_P(ModelTest, ComputesWhatTransformersComputes) {
  for (const Json& recorded : cases()) {
    SCOPED_TRACE(recorded.at("padding").get<std::string>() + " " + recorded.at("problem_type").get<std::string>());
    const test::TempFolder folder;
    ModelOptions chosen = options();
    chosen.problem_type = problem_type_of(recorded);
    if (chosen.problem_type == ProblemType::kRegression) {  // recorded with the first output only
      test::write_variant(GetParam(), folder.path(), [](NamedTensors& tensors) {
        for (auto& [name, tensor] : tensors) {
          if (name.starts_with("classifier.") || name.starts_with("score.")) tensor = tensor.narrow(0, 0, 1);
        }
      });
      chosen.folder = folder.path();
      chosen.num_labels = 1;
    }
    const std::shared_ptr<Model> model = test::load_for_evaluation(chosen);
    const Batch batch = recorded_batch(recorded);
    const ModelOutput output = model->forward(batch);
    EXPECT_LT(largest_difference(output.logits, test::tensor_of(recorded.at("logits"), at::kDouble)), 1e-5);
    ASSERT_EQ(output.loss_each.sizes(), at::IntArrayRef({3}));
    EXPECT_NEAR(output.loss_each.mean().item<double>(), recorded.at("loss").get<double>(), 1e-5);
    EXPECT_NEAR(output.loss_sum.item<double>() / 3, recorded.at("loss").get<double>(), 1e-5);

    (output.loss_sum / 3.0).backward();
    for (const auto& entry : model->named_parameters()) {
      const Json& expected = recorded.at("gradients").at(entry.key());
      const at::Tensor gradient = entry.value().grad();
      ASSERT_TRUE(gradient.defined()) << entry.key();
      EXPECT_NEAR(gradient.sum().item<double>(), expected.at(0).get<double>(), 1e-4) << entry.key();
      EXPECT_NEAR(gradient.norm().item<double>(), expected.at(1).get<double>(), 1e-5) << entry.key();
      EXPECT_NEAR(gradient.flatten()[-1].item<double>(), expected.at(2).get<double>(), 1e-5) << entry.key();
    }
  }
}

TEST_P(ModelTest, EveryElementOfTheGradientAgrees) {
  const std::shared_ptr<Model> model = test::load_for_evaluation(options());
  (model->forward(batch()).loss_sum / 3.0).backward();
  const SafetensorsFile expected(test::model_folder(GetParam()) / "gradients.safetensors");
  for (const auto& entry : model->named_parameters()) {
    EXPECT_LT(largest_difference(entry.value().grad(), expected.tensor(entry.key())), 2e-6) << entry.key();
  }
}

TEST_P(ModelTest, PaddingChangesNothing) {
  const c10::AutoGradMode no_gradient(false);
  const std::shared_ptr<Model> model = test::load_for_evaluation(options());
  const Batch padded = batch();
  const at::Tensor logits = model->forward(padded).logits;
  for (std::int64_t i = 0; i < padded.size; ++i) {
    Batch one = test::single_example(padded, i);
    const std::int64_t real = one["attention_mask"].sum().item<std::int64_t>();
    for (const char* name : {"input_ids", "attention_mask", "token_type_ids"}) {
      if (one.has(name)) one.tensors[name] = one[name].narrow(1, 0, real);
    }
    EXPECT_LT(largest_difference(model->forward(one).logits[0], logits[i]), 1e-5);
  }
}

TEST_P(ModelTest, DropoutBelongsToTheExampleAndNotToTheBatch) {
  const std::shared_ptr<Model> model = load_model(options()).model;
  model->train();
  const Batch whole = batch();
  const ModelOutput together = model->forward(whole);
  EXPECT_TRUE(at::equal(model->forward(whole).logits, together.logits));
  for (std::int64_t i = 0; i < whole.size; ++i) {
    const ModelOutput alone = model->forward(test::single_example(whole, i));
    EXPECT_LT(largest_difference(alone.logits[0], together.logits[i]), 1e-5);
  }
  Batch other_step = whole;
  other_step.random.step += 1;
  EXPECT_GT(largest_difference(model->forward(other_step).logits, together.logits), 1e-3);
  Batch other_slot = whole;
  other_slot.slot[0] = 77;
  const at::Tensor moved = model->forward(other_slot).logits;
  EXPECT_GT(largest_difference(moved[0], together.logits[0]), 1e-3);
  EXPECT_LT(largest_difference(moved[1], together.logits[1]), 1e-5);

  ModelOptions without = options();
  without.dropout = 0;
  const std::shared_ptr<Model> plain = load_model(without).model;
  plain->train();
  EXPECT_LT(largest_difference(plain->forward(whole).logits, test::tensor_of(cases().at(0).at("logits"), at::kDouble)),
            1e-5);
}

// The masks are the same in every pass, so the loss is an ordinary function of the weights.
TEST_P(ModelTest, GradientsOfDropoutAgreeWithDifferences) {
  const std::shared_ptr<Model> model = load_model(options()).model;
  model->train();
  const Batch whole = batch();
  model->forward(whole).loss_sum.backward();
  const c10::AutoGradMode no_gradient(false);
  for (const auto& entry : model->named_parameters()) {
    at::Tensor values = entry.value();
    const at::Tensor direction = values.grad() / (values.grad().norm() + 1e-12);
    const double step = 1e-2;
    const at::Tensor kept = values.clone();
    values.add_(direction, step);
    const double above = model->forward(whole).loss_sum.item<double>();
    values.copy_(kept).sub_(direction, step);
    const double below = model->forward(whole).loss_sum.item<double>();
    values.copy_(kept);
    const double norm = values.grad().norm().item<double>();
    EXPECT_NEAR((above - below) / (2 * step), norm, 1e-3 + 0.02 * norm) << entry.key();
  }
}

TEST_P(ModelTest, FillersCountNothing) {
  const std::shared_ptr<Model> model = test::load_for_evaluation(options());
  Batch filled = batch();
  filled.example_weight = {1, 0, 1};
  const ModelOutput output = model->forward(filled);
  const at::Tensor each = output.loss_each;
  EXPECT_NEAR(output.loss_sum.item<double>(), (each[0] + each[2]).item<double>(), 1e-5);
  output.loss_sum.backward();
  const auto parameters = model->named_parameters();
  const std::string head = GetParam() == "bert" ? "classifier.weight" : "score.weight";
  const at::Tensor with_filler = parameters[head].grad().clone();
  model->zero_grad();
  model->forward(test::single_example(filled, 0)).loss_sum.backward();
  model->forward(test::single_example(filled, 2)).loss_sum.backward();
  EXPECT_LT(largest_difference(parameters[head].grad(), with_filler), 1e-5);
}

TEST_P(ModelTest, RunsUnderBfloat16) {
  const std::shared_ptr<Model> model = load_model(options()).model;
  const auto norm_of_gradient = [&](Precision precision, at::Tensor& logits) {
    model->zero_grad();
    ModelOutput output;
    {
      const AutocastScope autocast(c10::DeviceType::CPU, precision);
      output = model->forward(batch());
    }
    EXPECT_EQ(output.logits.scalar_type(), at::kFloat);
    EXPECT_EQ(output.loss_sum.scalar_type(), at::kFloat);
    output.loss_sum.backward();
    double square = 0;
    for (const at::Tensor& parameter : model->parameters()) {
      EXPECT_EQ(parameter.grad().scalar_type(), at::kFloat);
      square += std::pow(parameter.grad().norm().item<double>(), 2);
    }
    logits = output.logits;
    return std::sqrt(square);
  };
  for (const bool training : {false, true}) {
    model->train(training);
    at::Tensor exact;
    at::Tensor rounded;
    const double expected = norm_of_gradient(Precision::kFloat32, exact);
    EXPECT_NEAR(norm_of_gradient(Precision::kBfloat16, rounded), expected, 0.05 * expected);
    EXPECT_LT(largest_difference(exact, rounded), 0.1);
    EXPECT_FALSE(at::equal(exact, rounded));
  }
}

TEST_P(ModelTest, WithoutLabelsThereIsNoLoss) {
  const std::shared_ptr<Model> model = test::load_for_evaluation(options());
  Batch unlabelled = batch();
  unlabelled.tensors.erase("labels");
  const ModelOutput output = model->forward(unlabelled);
  EXPECT_FALSE(output.loss_sum.defined());
  EXPECT_FALSE(output.loss_each.defined());
  EXPECT_TRUE(output.logits.defined());
}

TEST_P(ModelTest, RefusesBatchesThatDoNotFit) {
  const std::shared_ptr<Model> model = test::load_for_evaluation(options());
  const auto refused = [&](const std::function<void(Batch&)>& damage) {
    Batch bad = batch();
    bad.tensors["input_ids"] = bad["input_ids"].clone();
    damage(bad);
    return test::error_of(ExitCode::kData, [&] { (void)model->forward(bad); });
  };
  EXPECT_NE(refused([](Batch& bad) { bad.tensors["input_ids"][1][2] = 50; }).find("50"), std::string::npos);
  EXPECT_NE(refused([](Batch& bad) { bad.tensors["input_ids"][1][2] = -1; }).find("-1"), std::string::npos);
  EXPECT_NE(refused([](Batch& bad) {
              bad.tensors["labels"] = at::tensor(std::vector<std::int64_t>{0, 3, 1});
            }).find("3"),
            std::string::npos);
  const std::string too_long = refused([](Batch& bad) {
    for (auto& [name, tensor] : bad.tensors) {
      if (name != "labels") tensor = tensor.repeat({1, 2});
    }
  });
  EXPECT_NE(too_long.find("16"), std::string::npos) << too_long;
}

TEST(Bert, ThePaddingTokenGetsNoGradient) {
  ModelOptions options;
  options.folder = test::model_folder("bert");
  const std::shared_ptr<Model> model = test::load_for_evaluation(options);
  Batch batch = recorded_batch(golden_cases("bert").at(0));
  batch.tensors["attention_mask"].fill_(1);  // so that the padding tokens do influence the result
  model->forward(batch).loss_sum.backward();
  const at::Tensor gradient = model->named_parameters()["bert.embeddings.word_embeddings.weight"].grad();
  EXPECT_EQ(gradient[0].abs().max().item<float>(), 0);
  EXPECT_GT(gradient.abs().max().item<float>(), 0);
}

TEST(Gpt2, FollowsTheTraceOfTrainedWeights) {
  ModelOptions options;
  options.folder = test::test_data("models/gpt2-nano-sort");
  const LoadedModel loaded = load_model(options);
  EXPECT_EQ(loaded.report.missing, std::vector<std::string>{"score.weight"});
  EXPECT_EQ(loaded.report.unexpected, std::vector<std::string>{"lm_head.weight"});
  const auto model = std::dynamic_pointer_cast<Gpt2ForSequenceClassification>(loaded.model);
  ASSERT_NE(model, nullptr);
  const Json reference = read_json_file(options.folder / "reference.json");
  std::vector<at::Tensor> states;
  const at::Tensor last =
      model->backbone().forward(test::tensor_of(reference.at("input_ids"), at::kLong), {}, {}, {}, &states);
  const std::vector<std::string> names{"embeddings", "block0", "block1", "block2"};
  ASSERT_EQ(states.size(), names.size());
  for (std::size_t i = 0; i < names.size(); ++i) {
    EXPECT_LT(largest_difference(states[i], test::tensor_of(reference.at(names[i]), at::kDouble)), 1e-5) << names[i];
  }
  EXPECT_LT(largest_difference(model->backbone().final_norm(last), test::tensor_of(reference.at("ln_f"), at::kDouble)),
            1e-5);
}

TEST(Gpt2, WithoutPadTokenTheMaskSaysWhichTokenIsLast) {
  const test::TempFolder folder;
  test::write_variant("gpt2", folder.path(), {}, [](Json& config) { config["pad_token_id"] = nullptr; });
  ModelOptions options;
  options.folder = folder.path();
  const std::shared_ptr<Model> model = test::load_for_evaluation(options);
  for (const std::size_t i : {0U, 1U}) {  // padding on the right, on the left
    const Json& recorded = golden_cases("gpt2").at(i);
    Batch batch = recorded_batch(recorded);
    EXPECT_LT(largest_difference(model->forward(batch).logits, test::tensor_of(recorded.at("logits"), at::kDouble)),
              1e-5);
    batch.tensors.erase("attention_mask");
    EXPECT_THROW((void)model->forward(batch), Error);
  }
}

}  // namespace
}  // namespace dtrain
