// A tiny model, data and trainings of a few steps, for the tests of the loop: everything real but small.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "configs/train_config.h"
#include "datasets/collators/collator.h"
#include "datasets/dataset.h"
#include "dist/thread_ranks.h"
#include "trainer/models/model.h"
#include "trainer/trainer.h"

namespace dtrain::test {

// Mean of token embeddings, then a linear layer with bias; cross-entropy over two classes.
class TinyModel final : public Model {
 public:
  explicit TinyModel(std::uint64_t seed);

  [[nodiscard]] ModelOutput forward(const Batch& batch) override;
  [[nodiscard]] Json config_json() const override {
    return {{"model_type", "tiny"}, {"id2label", {{"0", "A"}, {"1", "B"}}}};
  }
  [[nodiscard]] std::int64_t max_positions() const override { return 64; }
  [[nodiscard]] std::int64_t vocab_size() const override { return kVocabulary; }
  [[nodiscard]] std::string model_type() const override { return "tiny"; }

  static constexpr std::int64_t kVocabulary = 40;
  // A text with this token has a loss that is not a number.
  static constexpr std::int32_t kPoison = 39;

  std::function<void()> during_forward;

 private:
  at::Tensor embedding_;
  std::shared_ptr<torch::nn::Module> classifier_;
  at::Tensor weight_;
  at::Tensor bias_;
};

class TinyDataset final : public Dataset {
 public:
  // Texts of 1 to 12 tokens, drawn from `seed`; the label depends on the tokens. `poisoned`: index of a text with
  // kPoison.
  explicit TinyDataset(std::int64_t size, std::uint64_t seed = 1, std::int64_t poisoned = -1);
  [[nodiscard]] std::int64_t size() const override { return static_cast<std::int64_t>(ids_.size()); }
  [[nodiscard]] Example get(std::int64_t index) const override;
  [[nodiscard]] std::string digest() const override { return digest_; }

 private:
  std::vector<std::vector<std::int32_t>> ids_;
  std::vector<double> labels_;
  std::string digest_;
};

[[nodiscard]] std::shared_ptr<const Collator> tiny_collator();

// All parameters of the model in one row.
[[nodiscard]] at::Tensor flat_weights(const Model& model);

struct TinyRun {
  int world_size = 1;
  std::int64_t examples = 21;
  std::int64_t eval_examples = 0;
  std::int64_t poisoned = -1;
  std::int64_t eval_poisoned = -1;
  // What received_signal answers, by rank and step asked for (from 1). May be empty.
  std::function<int(int rank, std::int64_t asked)> signal = {};
  std::shared_ptr<Callback> watcher = {};             // of rank 0
  std::function<void(Trainer&)> afterwards = {};      // on every rank, after train()
  std::function<void(int rank)> during_forward = {};  // on every rank, in each forward
};

struct TinyResult {
  TrainOutcome outcome;
  TrainerState state;
  at::Tensor weights;  // of rank 0; all ranks are checked to have the same
};

// Defaults for a run into `folder`: no log file, no bar, batch 8, 3 epochs, learning rate 0.05.
[[nodiscard]] TrainConfig tiny_config(const std::filesystem::path& folder);
// Trains with threads as ranks. Throws what the ranks throw.
[[nodiscard]] TinyResult train_tiny(const TrainConfig& config, const TinyRun& run);

}  // namespace dtrain::test
