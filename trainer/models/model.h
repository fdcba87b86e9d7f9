// Model: what the trainer trains. A torch::nn::Module whose forward returns the summed loss, so that any split of a
// step over ranks and micro-batches can be normalised by the weight of the whole step.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include "core/json.h"
#include "datasets/batch.h"

namespace dtrain {

// What the head on top of a model predicts; the names are those of AutoModelFor... of transformers.
enum class Task : std::uint8_t {
  kSequenceClassification,
  kTokenClassification,
  kMaskedLm,
  kCausalLm,
  kSeq2SeqLm,
};
// "sequence-classification", "token-classification", "masked-lm", "causal-lm", "seq2seq-lm". Throws Error(kUsage).
[[nodiscard]] Task task_named(const std::string& name);
// Whether it predicts tokens of the vocabulary, not labels.
[[nodiscard]] constexpr bool is_language_model(Task task) { return task >= Task::kMaskedLm; }

// A label belongs to an example or, where the batch has "targets", to a token.
struct ModelOutput {
  at::Tensor loss_sum;   // scalar float32: sum over labels of weight x loss; undefined when the batch has no labels
  at::Tensor loss_each;  // [batch] float32, unweighted, detached: of all labels of an example; may be undefined, then
                         // messages cannot name the examples whose loss is not finite
  at::Tensor logits;  // [labels, num_labels] float32, or what metrics of your own take; undefined for language models
  at::Tensor predicted;  // [labels] int64: the most probable word; language models in evaluation only
};

// `losses` [batch], one of each example, with a gradient, and what else the model says: fillers get weight 0.
[[nodiscard]] ModelOutput output_of(const at::Tensor& losses, const at::Tensor& logits, const Batch& batch);

// A model of your own needs forward() alone. Buffers (running statistics) are those of rank 0 in evaluation and in what
// is saved, as in PyTorch's DistributedDataParallel.
class Model : public torch::nn::Module {
 public:
  // Draws random numbers (dropout, in training mode) only from batch.random and batch.slot: see dropout(). LibTorch's
  // generator, seeded anew for each micro-batch, gives others for another split of a step. Thread-compatible.
  [[nodiscard]] virtual ModelOutput forward(const Batch& batch) = 0;
  // Parameters exempt from weight decay are those that the Trainer exempts; see trainer/optim/parameter_groups.h.
  // As written to config.json. Here: what describe() was given, and model_type.
  [[nodiscard]] virtual Json config_json() const;
  // The names under which transformers stores the parameters (name in this module -> name in model.safetensors).
  [[nodiscard]] virtual std::string stored_name(const std::string& parameter) const { return parameter; }
  // The longest text that it reads; 0: it has no limit of its own.
  [[nodiscard]] virtual std::int64_t max_positions() const { return 0; }
  [[nodiscard]] virtual std::int64_t vocab_size() const { return 0; }
  [[nodiscard]] virtual std::string model_type() const { return "custom"; }  // "bert", "gpt2"

  // Name and content of further files that belong beside its weights.
  [[nodiscard]] virtual std::vector<std::pair<std::string, std::string>> files() const { return {}; }

  // Keys that config_json() shall have.
  void describe(const Json& keys) { description_.update(keys); }

 protected:
  // `x` ([batch, ...], at most four dimensions) with elements set to 0 with `probability` while training, and the rest
  // scaled up. The same elements for every split of a step over ranks and micro-batches, and after a resume. `site`: a
  // number of its own for each place of the model that calls this.
  [[nodiscard]] at::Tensor dropout(const at::Tensor& x, double probability, const Batch& batch,
                                   std::uint32_t site) const;

 private:
  Json description_ = Json::object();
};

enum class ProblemType { kSingleLabel, kMultiLabel, kRegression };

struct ModelOptions {
  std::filesystem::path folder;  // config.json and, unless random_init, model.safetensors
  Task task = Task::kSequenceClassification;
  std::int64_t num_labels = 0;           // 0: as config.json says (id2label), else 2
  std::vector<std::string> label_names;  // by number; empty: as config.json says, else LABEL_0, ...
  ProblemType problem_type = ProblemType::kSingleLabel;
  double dropout = -1;             // >= 0 overrides every dropout probability of config.json
  std::int64_t pad_token_id = -1;  // >= 0: written to the config (GPT-2 has none of its own)
  std::uint64_t seed = 42;         // for weights that the file does not have (classifier head)
  bool random_init = false;        // ignore model.safetensors
  double label_smoothing = 0;      // of single-label losses, Szegedy et al. 2016: this share spread over all classes
  bool gradient_checkpointing = false;  // compute activations of blocks again instead of keeping them
  double neftune_noise_alpha = 0;       // Jain et al. 2023: uniform noise on embeddings while training
  bool compute_padding = false;         // work on padding tokens too, as transformers does; no result depends on it
};

// What loading found, for one log line and for tests.
struct LoadReport {
  std::vector<std::string> missing;     // parameters drawn anew
  std::vector<std::string> unexpected;  // tensors of the file that the model has no place for
};

struct LoadedModel {
  std::shared_ptr<Model> model;
  LoadReport report;
};

// Local and deterministic: all ranks get the same weights. Throws Error(kData) naming file and tensor.
[[nodiscard]] LoadedModel load_model(const ModelOptions& options);

// Writes config.json and model.safetensors (metadata {"format":"pt"}, parameters and buffers, tied copies left out)
// into `folder`, synced.
void save_model(const Model& model, const std::filesystem::path& folder);
// Copies the weights of `folder`/model.safetensors into `model`: every parameter and buffer must be there with its
// shape.
void load_weights(Model& model, const std::filesystem::path& folder);

}  // namespace dtrain
