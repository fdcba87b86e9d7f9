// EncoderModule: the stack of BERT and its relatives, without a head. Post-LayerNorm blocks; module and parameter names
// are BERT's.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include "trainer/models/layers.h"
#include "trainer/models/model_config.h"

namespace dtrain {

// Embeddings with or without noise; see TransformerModel::with_noise.
using AddNoise = std::function<at::Tensor(const at::Tensor& embedded, const DropoutKeys& keys)>;

struct EncoderPass {
  AddNoise add_noise;
  bool recomputes = false;
  bool first_tokens = false;  // only the first token of each example is read
};

class EncoderModule final : public torch::nn::Module {
 public:
  EncoderModule(const EncoderConfig& config, bool with_pooler);
  ~EncoderModule() override;

  // `ids` and `types` (may be undefined) [batch, length]. [rows, hidden], or [batch, hidden] of the first tokens.
  [[nodiscard]] at::Tensor forward(const at::Tensor& ids, const at::Tensor& types, const TokenContext& context,
                                   const EncoderPass& pass) const;
  // [batch, hidden]
  [[nodiscard]] at::Tensor pooled(const at::Tensor& first_tokens) const;
  // [vocab, hidden]
  [[nodiscard]] at::Tensor word_embeddings() const;
  // The first site of dropout that the stack does not use.
  [[nodiscard]] std::uint32_t head_site() const { return head_site_; }

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
  std::uint32_t head_site_ = 0;
};

}  // namespace dtrain
