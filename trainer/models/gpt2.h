// GPT-2 for sequence classification: decoder with pre-LayerNorm blocks, linear head without bias over the last real
// token. Equal to transformers' GPT2ForSequenceClassification; parameter names and layouts are those of its files.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "trainer/models/classifier.h"

namespace dtrain {

class EmbeddingLayer;
class LayerNormLayer;
class LinearLayer;
class Gpt2Block;
struct ReadTokens;
struct TokenContext;

// The stack without a head. Positions are 0, 1, ... from the left edge of the batch, padding included.
class Gpt2Backbone final : public torch::nn::Module {
 public:
  explicit Gpt2Backbone(const Gpt2Config& config);
  ~Gpt2Backbone() override;

  // Hidden states before the final norm: [rows, hidden], or [batch, hidden] when only the tokens of `read` are wanted.
  // `ids` are [batch, length], and so are `types`, which are looked up among the words, as transformers does; may be
  // undefined. `trace`, when given, receives the sum of the embeddings and then the result of each block.
  [[nodiscard]] at::Tensor forward(const at::Tensor& ids, const at::Tensor& types, const TokenContext& context,
                                   const ReadTokens* read = nullptr, std::vector<at::Tensor>* trace = nullptr) const;
  [[nodiscard]] at::Tensor final_norm(const at::Tensor& hidden) const;

 private:
  double dropout_;
  std::shared_ptr<EmbeddingLayer> words_;
  std::shared_ptr<EmbeddingLayer> positions_;
  std::vector<std::shared_ptr<Gpt2Block>> blocks_;
  std::shared_ptr<LayerNormLayer> norm_;
};

class Gpt2ForSequenceClassification final : public ClassifierModel {
 public:
  Gpt2ForSequenceClassification(const Gpt2Config& config, ClassifierConfig classifier);
  ~Gpt2ForSequenceClassification() override;

  [[nodiscard]] std::int64_t max_positions() const override { return config_.max_positions; }
  [[nodiscard]] std::int64_t vocab_size() const override { return config_.vocab_size; }
  [[nodiscard]] std::string model_type() const override { return "gpt2"; }
  [[nodiscard]] const Gpt2Backbone& backbone() const { return *transformer_; }

  [[nodiscard]] std::string base_prefix() const override { return "transformer."; }
  [[nodiscard]] std::string head_weight() const override { return "score.weight"; }
  [[nodiscard]] bool may_be_missing(const std::string& parameter) const override;
  [[nodiscard]] InitialValue initial_value(const std::string& parameter) const override;

 protected:
  [[nodiscard]] at::Tensor logits(const Inputs& inputs, const DropoutKeys& keys) override;
  [[nodiscard]] std::string architecture() const override { return "GPT2ForSequenceClassification"; }
  [[nodiscard]] std::int64_t pad_token_id() const override { return config_.pad_token_id; }
  [[nodiscard]] std::int64_t num_types() const override { return config_.vocab_size; }

 private:
  Gpt2Config config_;
  std::shared_ptr<Gpt2Backbone> transformer_;
  std::shared_ptr<LinearLayer> score_;
};

}  // namespace dtrain
