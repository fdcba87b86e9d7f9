// A plugin: a model, a collator and a metric that a settings file of dtrain may name. The program `dtrain` does the
// rest: reading and tokenising, training, evaluation, prediction, checkpoints.
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/relu.h>
#include <core/random.h>
#include <datasets/collators/padding_collator.h>
#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/embedding.h>
#include <torch/nn/modules/linear.h>
#include <trainer/metrics/metric_parts.h>
#include <trainer/registry.h>

namespace {

// The convolutional classifier of Kim 2014, with one width of windows.
class TextCnn final : public dtrain::Model {
 public:
  explicit TextCnn(const dtrain::ModelRequest& request)
      : words_(register_module("words", torch::nn::Embedding(request.vocab_size, 32))),
        windows_(register_module("windows", torch::nn::Conv1d(torch::nn::Conv1dOptions(32, 64, 3).padding(1)))),
        classifier_(register_module("classifier", torch::nn::Linear(64, request.num_labels))) {}

  [[nodiscard]] dtrain::ModelOutput forward(const dtrain::Batch& batch) override {
    const at::Tensor mask = batch["attention_mask"].unsqueeze(2);
    const at::Tensor embedded = words_(batch["input_ids"]) * mask;
    // Padding is 0, and after relu never the largest: the result does not depend on it.
    const at::Tensor found = at::relu(windows_(embedded.transpose(1, 2))) * mask.transpose(1, 2);
    const at::Tensor logits = classifier_(dropout(found.amax(2), 0.1, batch, /*site=*/0));
    if (!batch.has("labels")) {  // prediction
      dtrain::ModelOutput output;
      output.logits = logits;
      return output;
    }
    return dtrain::output_of(at::cross_entropy_loss(logits, batch["labels"], {}, at::Reduction::None), logits, batch);
  }
  [[nodiscard]] std::string model_type() const override { return "text_cnn"; }

 private:
  torch::nn::Embedding words_;
  torch::nn::Conv1d windows_;
  torch::nn::Linear classifier_;
};

// Word dropout (Iyyer et al. 2015): in training every tenth token, drawn from epoch, example and position, becomes
// padding.
class WordDropout final : public dtrain::Collator {
 public:
  explicit WordDropout(const dtrain::CollatorRequest& request)
      : pad_id_(static_cast<std::int32_t>(request.pad_id)),
        padding_(dtrain::make_padding_collator({.pad_id = pad_id_})) {}

  [[nodiscard]] dtrain::Batch collate(std::span<const dtrain::Example> examples,
                                      const dtrain::CollateKey& key) const override {
    std::vector<std::vector<std::int32_t>> ids;
    std::vector<dtrain::Example> kept(examples.begin(), examples.end());
    for (std::size_t i = 0; i < examples.size(); ++i) {
      ids.emplace_back(examples[i].ids.begin(), examples[i].ids.end());
      std::uint64_t draw =
          dtrain::mix64(static_cast<std::uint64_t>(key.epoch) * 1000003 + static_cast<std::uint64_t>(key.index[i]));
      for (std::int32_t& id : ids.back()) {
        draw = dtrain::mix64(draw);
        if (key.epoch >= 0 && draw % 10 == 0) id = pad_id_;
      }
    }
    for (std::size_t i = 0; i < ids.size(); ++i) kept[i].ids = ids[i];
    return padding_->collate(kept, key);
  }

 private:
  std::int32_t pad_id_;
  std::shared_ptr<const dtrain::Collator> padding_;
};

// Of the texts of class 0, the share that is recognised. counts: [recognised, all].
class Specificity final : public dtrain::StatefulMetric {
 public:
  Specificity() : StatefulMetric(2, 0) {}

  void add(const dtrain::Predictions& given) override {
    const at::Tensor negative = given.labels.eq(0);
    state_.counts[0] += given.logits.argmax(1).eq(0).logical_and(negative).sum().item<std::int64_t>();
    state_.counts[1] += negative.sum().item<std::int64_t>();
  }
  [[nodiscard]] std::vector<std::pair<std::string, double>> compute() const override {
    return {{"specificity", static_cast<double>(state_.counts[0]) / static_cast<double>(state_.counts[1])}};
  }
};

}  // namespace

DTRAIN_PLUGIN(registry) {
  registry.add_model("text_cnn",
                     [](const dtrain::ModelRequest& request) { return std::make_shared<TextCnn>(request); });
  registry.add_collator("word_dropout",
                        [](const dtrain::CollatorRequest& request) { return std::make_shared<WordDropout>(request); });
  registry.add_metric("specificity",
                      [](const dtrain::MetricRequest& /*request*/) { return std::make_unique<Specificity>(); });
}
