// Equality with transformers (tests/golden/record_models.py) and with the published trace of a trained GPT-2.
#include <cmath>
#include <string>

#include <gtest/gtest.h>

#include <ATen/autocast_mode.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/softmax.h>

#include "tests/support/files.h"
#include "tests/support/temp_folder.h"
#include "tests/unit/trainer/models_support.h"
#include "trainer/models/gpt2.h"
#include "trainer/models/layers.h"
#include "trainer/models/model.h"

namespace dtrain::test {
namespace {

constexpr double kTolerance = 1e-5;

class GoldenModel : public ::testing::TestWithParam<std::string> {
 protected:
  std::filesystem::path folder_ = test_data("models/" + GetParam());
  TempFolder temp_;

  // The model with the head that a case of `outputs` labels was recorded with: the first rows of the stored one.
  std::shared_ptr<Model> load(ProblemType problem, std::int64_t outputs) {
    copy_model(folder_, temp_.path() / "m", {{}, [&](NamedTensors& tensors) {
                                               for (auto& [name, value] : tensors) {
                                                 if (name.starts_with("classifier.") || name.starts_with("score."))
                                                   value = value.narrow(0, 0, outputs);
                                               }
                                             }});
    ModelOptions options;
    options.folder = temp_.path() / "m";
    options.num_labels = outputs;
    options.problem_type = problem;
    const LoadedModel loaded = load_model(options);
    EXPECT_TRUE(loaded.report.missing.empty());
    EXPECT_TRUE(loaded.report.unexpected.empty());
    loaded.model->eval();
    return loaded.model;
  }
};

TEST_P(GoldenModel, LogitsLossesAndGradientsEqualThoseOfTransformers) {
  const SafetensorsFile full(folder_ / "gradients.safetensors");
  bool first = true;
  for (const Json& golden : read_json_file(folder_ / "golden.json")) {
    SCOPED_TRACE(golden["padding"].get<std::string>() + " " + golden["problem_type"].get<std::string>());
    const ProblemType problem = problem_of(golden["problem_type"]);
    const at::Tensor logits = tensor_of(golden["logits"], at::kFloat);
    const auto model = load(problem, logits.size(1));
    const Batch batch = batch_of(golden["batch"], golden["labels"], problem);
    const ModelOutput output = model->forward(batch);
    EXPECT_LT(difference(output.logits, logits), kTolerance);
    EXPECT_NEAR(output.loss_sum.item<double>() / batch.weight, golden["loss"].get<double>(), kTolerance);
    EXPECT_NEAR(output.loss_each.mean().item<double>(), golden["loss"].get<double>(), kTolerance);
    EXPECT_FALSE(output.loss_each.requires_grad());

    output.loss_sum.div(batch.weight).backward();
    std::size_t compared = 0;
    for (const auto& item : model->named_parameters()) {
      SCOPED_TRACE(item.key());
      const at::Tensor gradient = item.value().grad();
      ASSERT_TRUE(gradient.defined());
      const Json& summary = golden["gradients"].at(model->stored_name(item.key()));
      EXPECT_NEAR(gradient.sum().item<double>(), summary[0].get<double>(), 1e-4);
      EXPECT_NEAR(gradient.norm().item<double>(), summary[1].get<double>(),
                  kTolerance * (1 + summary[1].get<double>()));
      EXPECT_NEAR(gradient.flatten()[-1].item<double>(), summary[2].get<double>(), kTolerance);
      if (first) {
        EXPECT_LT(difference(gradient, full.tensor(model->stored_name(item.key()))), kTolerance);
      }
      ++compared;
    }
    EXPECT_EQ(compared, golden["gradients"].size());
    first = false;
  }
}

// As the trainer runs it: the forward pass under autocast, parameters and loss in float32.
TEST_P(GoldenModel, WorksUnderAutocast) {
  const Json golden = read_json_file(folder_ / "golden.json")[0];
  const auto model = load(ProblemType::kSingleLabel, 3);
  model->train();
  Batch batch = batch_of(golden["batch"], golden["labels"], ProblemType::kSingleLabel);
  at::autocast::set_autocast_enabled(at::kCPU, true);
  at::autocast::set_autocast_dtype(at::kCPU, at::kBFloat16);
  const ModelOutput trained = model->forward(batch);
  model->eval();
  const ModelOutput output = model->forward(batch);
  at::autocast::clear_cache();
  at::autocast::set_autocast_enabled(at::kCPU, false);
  EXPECT_EQ(output.logits.scalar_type(), at::kFloat);
  EXPECT_EQ(output.loss_sum.scalar_type(), at::kFloat);
  const double gap = difference(output.logits, tensor_of(golden["logits"], at::kFloat));
  EXPECT_LT(gap, 0.2);
  EXPECT_GT(gap, 0) << "autocast had no effect";
  trained.loss_sum.backward();
  for (const auto& item : model->named_parameters()) {
    EXPECT_EQ(item.value().grad().scalar_type(), at::kFloat);
    EXPECT_TRUE(item.value().grad().isfinite().all().item<bool>()) << item.key();
  }
}

// A filler counts for nothing: neither in the loss nor in any gradient.
TEST_P(GoldenModel, WeightZeroHasNoInfluence) {
  const Json golden = read_json_file(folder_ / "golden.json")[0];
  const auto run = [&](bool filler) {
    const auto model = load(ProblemType::kSingleLabel, 3);
    Batch batch = batch_of(golden["batch"], golden["labels"], ProblemType::kSingleLabel);
    if (filler) {
      batch.example_weight[1] = 0;
    } else {
      for (auto& [name, value] : batch.tensors) value = value.index_select(0, tensor_of({0, 2}, at::kLong));
      batch.size = 2;
      batch.example_weight = {1, 1};
      batch.slot = {0, 2};
    }
    const ModelOutput output = model->forward(batch);
    output.loss_sum.backward();
    NamedTensors gradients{{"loss", output.loss_sum.detach()}};
    for (const auto& item : model->named_parameters()) gradients.emplace_back(item.key(), item.value().grad());
    return gradients;
  };
  const NamedTensors with = run(true);
  const NamedTensors without = run(false);
  for (std::size_t i = 0; i < with.size(); ++i) {
    EXPECT_LT(difference(with[i].second, without[i].second), kTolerance) << with[i].first;
  }
}

// Training with dropout: the loss of an example does not depend on the batch it is in, nor on its padding.
TEST_P(GoldenModel, DropoutIsTheSameHoweverTheBatchIsSplit) {
  const Json golden = read_json_file(folder_ / "golden.json")[0];
  const auto model = load(ProblemType::kSingleLabel, 3);
  model->train();
  const Batch whole = batch_of(golden["batch"], golden["labels"], ProblemType::kSingleLabel);
  const at::Tensor together = model->forward(whole).loss_each;
  Batch one = whole;
  one.size = 1;
  one.slot = {2};
  one.example_weight = {1};
  one.example_index = {102};
  for (auto& [name, value] : one.tensors) {
    value = value.narrow(0, 2, 1);
    if (name != "labels") value = value.narrow(1, 0, 4);  // the third example has four real tokens
  }
  EXPECT_NEAR(model->forward(one).loss_each.item<float>(), together[2].item<float>(), 1e-5);
  EXPECT_EQ(difference(model->forward(whole).loss_each, together), 0);
  Batch next = whole;
  next.random.step = 1;
  EXPECT_GT(difference(model->forward(next).loss_each, together), 1e-3);
  model->eval();
  EXPECT_GT(difference(model->forward(whole).loss_each, together), 1e-3);
}

TEST_P(GoldenModel, PaddingRowHasNoGradient) {
  if (GetParam() != "tiny-bert") return;  // GPT-2 has no padding row
  const Json golden = read_json_file(folder_ / "golden.json")[0];
  const auto model = load(ProblemType::kSingleLabel, 3);
  model->forward(batch_of(golden["batch"], golden["labels"], ProblemType::kSingleLabel)).loss_sum.backward();
  for (const auto& item : model->named_parameters()) {
    if (!item.key().ends_with("word_embeddings.weight")) continue;
    EXPECT_EQ(item.value().grad()[0].abs().sum().item<float>(), 0);
    EXPECT_GT(item.value().grad().abs().sum().item<float>(), 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Tiny, GoldenModel, ::testing::Values("tiny-bert", "tiny-gpt2"),
                         [](const auto& each) { return each.param.substr(5); });

TEST(GoldenTrace, TrainedGpt2GivesThePublishedActivations) {
  const auto folder = test_data("models/gpt2-nano-sort");
  ModelOptions options;
  options.folder = folder;
  const LoadedModel loaded = load_model(options);
  EXPECT_EQ(loaded.report.missing, std::vector<std::string>{"score.weight"});
  EXPECT_EQ(loaded.report.unexpected, std::vector<std::string>{"lm_head.weight"});
  loaded.model->eval();
  const auto& model = dynamic_cast<const Gpt2Model&>(*loaded.model);

  const Json reference = read_json_file(folder / "reference.json");
  std::vector<at::Tensor> trace;
  const at::Tensor ids = tensor_of(reference["input_ids"], at::kLong);
  const TokenContext context(make_token_layout({}, ids.size(0), ids.size(1), at::kCPU, /*causal=*/true, true), {}, {});
  const at::Tensor hidden = model.backbone().forward(ids, {}, context, {.trace = &trace});
  const at::Tensor normed = model.backbone().final_norm(hidden);
  const at::Tensor logits =
      at::matmul(normed, SafetensorsFile(folder / "model.safetensors").tensor("lm_head.weight").t());
  ASSERT_EQ(trace.size(), 4U);
  const auto compare = [&](const char* name, const at::Tensor& value) {
    const at::Tensor expected = tensor_of(reference[name], at::kFloat);
    const double scale = 1 + expected.abs().max().item<double>();
    EXPECT_LT(difference(value.view(expected.sizes()), expected), kTolerance * scale) << name;
  };
  compare("embeddings", trace[0]);
  compare("block0", trace[1]);
  compare("block1", trace[2]);
  compare("block2", trace[3]);
  compare("ln_f", normed);
  compare("logits", logits);
  compare("probs", at::softmax(logits, -1));
}

}  // namespace
}  // namespace dtrain::test
