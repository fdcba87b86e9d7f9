// A convolutional network on images, with everything around it of one's own: data set, collator, model with its loss,
// metric and callback.
//
//   ./cnn cnn.toml
//   mpirun -np 4 ./cnn cnn.toml --set training.per_device_train_batch_size=8
//
// Both train on the same 32 images a step and give the same numbers up to rounding.
#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ops/argmax.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/max_pool2d.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/roll.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/stack.h>
#include <core/random.h>
#include <launcher/run_trainer.h>
#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/linear.h>
#include <trainer/metrics/metric_parts.h>

namespace {

constexpr std::int64_t kSize = 16;  // pixels, in both directions
constexpr std::int64_t kClasses = 3;

// Images of stripes that run across, down, or along the diagonal, half of the pixels replaced by noise. Drawn from
// their numbers: get() is pure, as a data set must be.
class Stripes final : public dtrain::Dataset {
 public:
  Stripes(std::int64_t size, std::uint64_t seed) : size_(size), seed_(seed) {}

  [[nodiscard]] std::int64_t size() const override { return size_; }
  [[nodiscard]] std::int64_t length(std::int64_t /*index*/) const override { return kSize * kSize; }
  [[nodiscard]] std::string digest() const override { return fmt::format("stripes {} {}", size_, seed_); }

  [[nodiscard]] dtrain::Example get(std::int64_t index) const override {
    std::uint64_t draw = dtrain::mix64(seed_ * 1000003 + static_cast<std::uint64_t>(index));
    const auto next = [&](std::uint64_t below) { return (draw = dtrain::mix64(draw)) % below; };
    const std::int64_t label = index % kClasses;
    const auto phase = static_cast<std::int64_t>(next(4));
    at::Tensor image = at::empty({1, kSize, kSize}, at::kByte);
    auto* pixel = image.mutable_data_ptr<std::uint8_t>();
    for (std::int64_t y = 0; y < kSize; ++y) {
      for (std::int64_t x = 0; x < kSize; ++x) {
        const std::int64_t across = label == 0 ? y : label == 1 ? x : x + y;
        const bool bright = (across + phase) / 2 % 2 == 0;
        *pixel++ = static_cast<std::uint8_t>(next(2) == 0 ? next(256) : bright ? 230 : 30);
      }
    }
    dtrain::Example example;
    example.tensors = {{"image", image}, {"label", at::scalar_tensor(label, at::kLong)}};
    return example;
  }

 private:
  std::int64_t size_;
  std::uint64_t seed_;
};

// Bytes to numbers around 0 and, in training, each image rolled by a random number of columns. The draw depends on the
// epoch and on the image alone, so it is the same for any number of ranks and after a resume.
class RollingCollator final : public dtrain::Collator {
 public:
  [[nodiscard]] dtrain::Batch collate(std::span<const dtrain::Example> examples,
                                      const dtrain::CollateKey& key) const override {
    std::vector<at::Tensor> images;
    std::vector<at::Tensor> labels;
    for (std::size_t i = 0; i < examples.size(); ++i) {
      const at::Tensor image = examples[i].tensors.at("image").to(at::kFloat).div(127.5).sub(1);
      const std::uint64_t draw =
          dtrain::mix64(static_cast<std::uint64_t>(key.index[i]) * 4099 + static_cast<std::uint64_t>(key.epoch));
      images.push_back(key.epoch < 0 ? image : at::roll(image, static_cast<std::int64_t>(draw % kSize), 2));
      labels.push_back(examples[i].tensors.at("label"));
    }
    dtrain::Batch batch;
    batch.size = static_cast<std::int64_t>(examples.size());
    batch.tensors = {{"image", at::stack(images)}, {"labels", at::stack(labels)}};
    return batch;
  }
};

class Cnn final : public dtrain::Model {
 public:
  Cnn()
      : first_(register_module("first", torch::nn::Conv2d(torch::nn::Conv2dOptions(1, 8, 3).padding(1)))),
        second_(register_module("second", torch::nn::Conv2d(torch::nn::Conv2dOptions(8, 16, 3).padding(1)))),
        classifier_(register_module("classifier", torch::nn::Linear(16, kClasses))) {}

  [[nodiscard]] dtrain::ModelOutput forward(const dtrain::Batch& batch) override {
    at::Tensor x = at::max_pool2d(at::relu(first_(batch["image"])), 2);
    x = at::relu(second_(x)).mean({2, 3});
    const at::Tensor logits = classifier_(dropout(x, 0.1, batch, /*site=*/0));
    // A loss of its own: the focal loss of Lin et al. 2017, which looks less at what is clear already.
    const at::Tensor log_probability = at::log_softmax(logits, 1).gather(1, batch["labels"].unsqueeze(1)).squeeze(1);
    const at::Tensor losses = (1 - log_probability.exp()).square() * -log_probability;
    return dtrain::output_of(losses, logits, batch);
  }
  [[nodiscard]] std::string model_type() const override { return "stripes_cnn"; }

 private:
  torch::nn::Conv2d first_;
  torch::nn::Conv2d second_;
  torch::nn::Linear classifier_;
};

// The recall of the class that is recognised worst. counts: per class [right, all], which simply add up over ranks.
class WorstRecall final : public dtrain::StatefulMetric {
 public:
  WorstRecall() : StatefulMetric(2 * kClasses, 0) {}

  void add(const dtrain::Predictions& given) override {
    const at::Tensor predicted = at::argmax(given.logits, 1);
    for (std::int64_t i = 0; i < predicted.numel(); ++i) {
      const auto label = given.labels[i].item<std::int64_t>();
      state_.counts[static_cast<std::size_t>(2 * label)] += predicted[i].item<std::int64_t>() == label ? 1 : 0;
      state_.counts[static_cast<std::size_t>(2 * label + 1)] += 1;
    }
  }

  [[nodiscard]] std::vector<std::pair<std::string, double>> compute() const override {
    double worst = 1;
    for (std::size_t label = 0; label < kClasses; ++label) {
      worst = std::min(worst, static_cast<double>(state_.counts[2 * label]) /
                                  static_cast<double>(std::max<std::int64_t>(state_.counts[2 * label + 1], 1)));
    }
    return {{"worst_recall", worst}};
  }
};

// Ends the training when no image of the evaluation is confused any more.
class StopWhenSolved final : public dtrain::Callback {
 public:
  void on_evaluate(const dtrain::TrainerState& state, dtrain::TrainerControl& control,
                   const dtrain::OrderedJson& metrics) override {
    if (metrics.at("eval_worst_recall").get<double>() < 1) return;
    if (state.is_world_process_zero) fmt::print("solved after step {}\n", state.global_step);
    control.should_training_stop = true;
  }
};

dtrain::TrainerParts make_parts(const dtrain::Job& /*job*/) {
  dtrain::TrainerParts parts;
  parts.model_init = [] { return std::make_shared<Cnn>(); };
  parts.train_data = std::make_shared<Stripes>(960, 1);
  parts.eval_data = std::make_shared<Stripes>(240, 2);
  parts.collator = std::make_shared<RollingCollator>();
  parts.metrics.push_back(dtrain::make_metric("accuracy", {.num_labels = kClasses}));
  parts.metrics.push_back(std::make_unique<WorstRecall>());
  parts.callbacks.push_back(std::make_shared<StopWhenSolved>());
  return parts;
}

}  // namespace

int main(int argc, char** argv) { return dtrain::run_trainer(argc, argv, make_parts); }
