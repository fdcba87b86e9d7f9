#include "tests/unit/trainer/loop_support.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <mutex>

#include <ATen/Parallel.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "configs/load_config.h"
#include "core/error.h"
#include "core/log.h"
#include "core/random.h"
#include "trainer/resume.h"

namespace dtrain::test {
namespace {

// A rank is asked for signals while it evaluates too: the tests count steps.
class StepCounter final : public Callback {
 public:
  void on_step_begin(const TrainerState& /*state*/, TrainerControl& /*control*/) override { ++begun; }
  std::int64_t begun = 0;
};

constexpr std::int64_t kWidth = 6;

at::Tensor drawn(std::vector<std::int64_t> shape, std::uint64_t seed) {
  at::Tensor tensor = at::empty(shape, at::kFloat);
  float* values = tensor.mutable_data_ptr<float>();
  for (std::int64_t i = 0; i < tensor.numel(); ++i) {
    const std::uint64_t bits = mix64(seed * 1'000'003 + static_cast<std::uint64_t>(i));
    values[i] = static_cast<float>(bits >> 40) / static_cast<float>(1 << 24) - 0.5F;
  }
  return tensor;
}

class TinyCollator final : public Collator {
 public:
  [[nodiscard]] Batch collate(std::span<const Example> examples, const CollateKey& /*key*/) const override {
    std::size_t longest = 0;
    for (const Example& example : examples) longest = std::max(longest, example.ids.size());
    const auto rows = static_cast<std::int64_t>(examples.size());
    Batch batch;
    at::Tensor ids = at::zeros({rows, static_cast<std::int64_t>(longest)}, at::kLong);
    at::Tensor mask = at::zeros_like(ids);
    at::Tensor labels = at::zeros({rows}, at::kLong);
    for (std::int64_t row = 0; row < rows; ++row) {
      const Example& example = examples[static_cast<std::size_t>(row)];
      for (std::size_t i = 0; i < example.ids.size(); ++i) {
        ids[row][static_cast<std::int64_t>(i)] = example.ids[i];
        mask[row][static_cast<std::int64_t>(i)] = 1;
      }
      labels[row] = static_cast<std::int64_t>(example.labels[0]);
    }
    batch.size = rows;
    batch.tensors = {{"input_ids", ids}, {"attention_mask", mask}, {"labels", labels}};
    return batch;
  }
};

}  // namespace

TinyModel::TinyModel(std::uint64_t seed)
    : embedding_(register_parameter("embedding", drawn({kVocabulary, kWidth}, seed))),
      classifier_(register_module("classifier", std::make_shared<torch::nn::Module>())),
      weight_(classifier_->register_parameter("weight", drawn({2, kWidth}, seed + 1))),
      bias_(classifier_->register_parameter("bias", at::zeros({2}))) {}

ModelOutput TinyModel::forward(const Batch& batch) {
  if (during_forward) during_forward();
  const at::Tensor& ids = batch["input_ids"];
  const at::Tensor mask = batch["attention_mask"].to(at::kFloat).unsqueeze(2);
  const at::Tensor mean = at::embedding(embedding_, ids).mul(mask).sum(1).div(mask.sum(1));
  ModelOutput output;
  output.logits = at::linear(mean, weight_, bias_);
  at::Tensor losses = at::cross_entropy_loss(output.logits, batch["labels"], {}, at::Reduction::None);
  const at::Tensor poisoned = ids.eq(kPoison).any(1);
  // A factor, not a choice between two losses: the gradient of the branch not taken would be 0 x NaN.
  losses = losses.mul(at::ones_like(losses).masked_fill(poisoned, std::numeric_limits<float>::quiet_NaN()));
  const at::Tensor weights = at::tensor(at::ArrayRef<float>(batch.example_weight));
  output.loss_sum = losses.mul(weights).sum();
  output.loss_each = losses.detach();
  return output;
}

TinyDataset::TinyDataset(std::int64_t size, std::uint64_t seed, std::int64_t poisoned)
    : digest_(fmt::format("{} {}", size, seed)) {
  std::uint64_t draw = seed * 7919;
  for (std::int64_t i = 0; i < size; ++i) {
    std::vector<std::int32_t> ids(1 + mix64(++draw) % 12);
    std::int64_t sum = 0;
    for (std::int32_t& id : ids) {
      id = static_cast<std::int32_t>(mix64(++draw) % TinyModel::kPoison);
      sum += id;
    }
    if (i == poisoned) ids.back() = TinyModel::kPoison;
    labels_.push_back(static_cast<double>(sum % 2));
    ids_.push_back(std::move(ids));
  }
}

Example TinyDataset::get(std::int64_t index) const {
  const auto i = static_cast<std::size_t>(index);
  return {ids_[i], std::span(&labels_[i], 1)};
}

std::shared_ptr<const Collator> tiny_collator() { return std::make_shared<TinyCollator>(); }

at::Tensor flat_weights(const Model& model) {
  std::vector<at::Tensor> rows;
  for (const at::Tensor& parameter : model.parameters()) rows.push_back(parameter.detach().clone().reshape({-1}));
  return at::cat(rows);
}

TrainConfig tiny_config(const std::filesystem::path& folder) {
  TrainConfig config;
  config.model.path = "tiny";
  config.data.train = "tiny";
  TrainingConfig& training = config.training;
  training.output_dir = folder.string();
  training.per_device_train_batch_size = 8;
  training.per_device_eval_batch_size = 4;
  training.learning_rate = 0.05;
  training.logging_steps = 1;
  training.save_strategy = "no";
  training.use_cpu = true;
  return config;
}

TinyResult train_tiny(const TrainConfig& given, const TinyRun& run) {
  log::set_up(0, 1, log::Level::kError, log::Level::kError);
  at::set_num_threads(1);
  TrainConfig config = given;
  if (run.eval_examples > 0) config.data.eval = "tiny";
  Origins origins;
  resolve(config, origins);
  TinyResult result;
  std::mutex mutex;
  std::vector<at::Tensor> weights(static_cast<std::size_t>(run.world_size));
  run_thread_ranks(run.world_size, [&](ThreadRank& rank) {
    const TrainConfig resumed = config_to_resume(config, rank.host);
    TrainerParts parts;
    // Different start weights: the trainer must make them those of rank 0.
    auto model = std::make_shared<TinyModel>(11 + static_cast<std::uint64_t>(rank.world.rank));
    parts.model = model;
    parts.train_data = std::make_shared<TinyDataset>(run.examples, 1, run.poisoned);
    if (run.eval_examples > 0) {
      parts.eval_data = std::make_shared<TinyDataset>(run.eval_examples, 2, run.eval_poisoned);
    }
    parts.collator = tiny_collator();
    for (const std::string& metric : config.metrics.compute) parts.metrics.push_back(make_metric(metric, {2, false}));
    parts.tokenizer_files = {{"vocab.txt", "a\nb\n"}};
    parts.world = rank.world;
    parts.host = &rank.host;
    parts.communicator = rank.communicator;
    if (run.watcher && rank.world.is_first()) parts.callbacks.push_back(run.watcher);
    if (run.during_forward) model->during_forward = [&, index = rank.world.rank] { run.during_forward(index); };
    if (run.signal) {
      const auto counter = std::make_shared<StepCounter>();
      parts.callbacks.push_back(counter);
      parts.received_signal = [&, counter, index = rank.world.rank] { return run.signal(index, counter->begun); };
    }
    Trainer trainer(resumed, std::move(parts));
    const TrainOutcome outcome = trainer.train();
    if (run.afterwards) run.afterwards(trainer);
    const std::lock_guard lock(mutex);
    weights[static_cast<std::size_t>(rank.world.rank)] = flat_weights(*model);
    if (rank.world.is_first()) {
      result.outcome = outcome;
      result.state = trainer.state();
    }
  });
  result.weights = weights[0];
  for (const at::Tensor& each : weights)
    EXPECT_TRUE(at::equal(each, result.weights)) << "the ranks have different weights";
  return result;
}

}  // namespace dtrain::test
