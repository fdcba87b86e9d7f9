// GPT-2: decoder with pre-LayerNorm blocks, and the heads of transformers' classes: a linear layer without bias over
// the last real token (GPT2ForSequenceClassification), one with bias over tokens (GPT2ForTokenClassification), the word
// embeddings (GPT2LMHeadModel). Parameter names and layouts are those of its files.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "trainer/models/transformer.h"

namespace dtrain {

class EmbeddingLayer;
class LayerNormLayer;
class LinearLayer;
class Gpt2Block;
struct ReadTokens;
struct TokenContext;

struct Gpt2Pass {
  std::function<at::Tensor(const at::Tensor& embedded, const DropoutKeys& keys)> add_noise = {};  // empty: none
  bool recomputes = false;
  const ReadTokens* read = nullptr;          // the tokens that are wanted; null: all
  std::vector<at::Tensor>* trace = nullptr;  // receives the sum of the embeddings and then the result of each block
};

// The stack without a head. Positions are 0, 1, ... from the left edge of the batch, padding included.
class Gpt2Backbone final : public torch::nn::Module {
 public:
  explicit Gpt2Backbone(const Gpt2Config& config);
  ~Gpt2Backbone() override;

  // Hidden states before the final norm: [rows, hidden], or [batch, hidden] when only the tokens of `read` are wanted.
  // `ids` are [batch, length], and so are `types`, which are looked up among the words, as transformers does; may be
  // undefined.
  [[nodiscard]] at::Tensor forward(const at::Tensor& ids, const at::Tensor& types, const TokenContext& context,
                                   const Gpt2Pass& pass = {}) const;
  // [vocab, hidden]
  [[nodiscard]] const at::Tensor& word_embeddings() const;
  [[nodiscard]] at::Tensor final_norm(const at::Tensor& hidden) const;

 private:
  double dropout_;
  std::shared_ptr<EmbeddingLayer> words_;
  std::shared_ptr<EmbeddingLayer> positions_;
  std::vector<std::shared_ptr<Gpt2Block>> blocks_;
  std::shared_ptr<LayerNormLayer> norm_;
};

class Gpt2Model final : public TransformerModel {
 public:
  // Throws Error(kUsage) for a task that it has no head for.
  Gpt2Model(const Gpt2Config& config, HeadConfig head);
  ~Gpt2Model() override;

  [[nodiscard]] std::int64_t max_positions() const override { return config_.max_positions; }
  [[nodiscard]] std::int64_t vocab_size() const override { return config_.vocab_size; }
  [[nodiscard]] std::string model_type() const override { return "gpt2"; }
  [[nodiscard]] std::string stored_name(const std::string& parameter) const override;
  [[nodiscard]] const Gpt2Backbone& backbone() const { return *transformer_; }

  [[nodiscard]] std::string base_prefix() const override { return "transformer."; }
  [[nodiscard]] std::string head_weight() const override;
  [[nodiscard]] bool may_be_missing(const std::string& parameter) const override;
  [[nodiscard]] bool is_tied_copy(const std::string& tensor) const override;
  [[nodiscard]] InitialValue initial_value(const std::string& parameter) const override;

 protected:
  [[nodiscard]] ModelOutput run(const Batch& batch, const Inputs& inputs, const DropoutKeys& keys) override;
  [[nodiscard]] std::string architecture() const override;
  [[nodiscard]] std::int64_t pad_token_id() const override { return config_.pad_token_id; }
  [[nodiscard]] std::int64_t num_types() const override { return config_.vocab_size; }

 private:
  // What the head reads: the last real token of each example, or the tokens that have labels.
  [[nodiscard]] at::Tensor last_tokens(const Inputs& inputs, const DropoutKeys& keys) const;
  [[nodiscard]] TokenContext context_of(const Inputs& inputs, const DropoutKeys& keys, bool packed) const;
  [[nodiscard]] Gpt2Pass pass(const at::Tensor& mask) const;

  Gpt2Config config_;
  std::shared_ptr<Gpt2Backbone> transformer_;
  std::shared_ptr<LinearLayer> score_;  // of sequences, without bias, or of tokens, with bias
};

}  // namespace dtrain
