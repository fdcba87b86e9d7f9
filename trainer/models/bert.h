// BERT, RoBERTa and DistilBERT with the heads of their transformers classes: sequence classification, token
// classification and masked language modelling. Parameter names in files are those of transformers.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "trainer/models/encoder.h"
#include "trainer/models/transformer.h"

namespace dtrain {

class BertModel final : public TransformerModel {
 public:
  // Throws Error(kUsage) for a task that it has no head for.
  BertModel(const EncoderConfig& config, HeadConfig head);
  ~BertModel() override;

  [[nodiscard]] std::int64_t max_positions() const override { return config_.max_positions; }
  [[nodiscard]] std::int64_t vocab_size() const override { return config_.vocab_size; }
  [[nodiscard]] std::string model_type() const override;
  [[nodiscard]] std::string stored_name(const std::string& parameter) const override;

  [[nodiscard]] std::string base_prefix() const override { return model_type() + "."; }
  [[nodiscard]] std::string head_weight() const override;
  [[nodiscard]] bool may_be_missing(const std::string& parameter) const override;
  [[nodiscard]] bool is_tied_copy(const std::string& tensor) const override;
  [[nodiscard]] InitialValue initial_value(const std::string& parameter) const override;

 protected:
  [[nodiscard]] ModelOutput run(const Batch& batch, const Inputs& inputs, const DropoutKeys& keys) override;
  [[nodiscard]] std::string architecture() const override;
  [[nodiscard]] std::int64_t pad_token_id() const override { return config_.pad_token_id; }
  [[nodiscard]] std::int64_t num_types() const override { return config_.type_vocab_size; }

 private:
  class Head;
  [[nodiscard]] at::Tensor sequence_logits(const at::Tensor& first_tokens, const DropoutKeys& keys) const;

  EncoderConfig config_;
  std::shared_ptr<EncoderModule> base_;
  std::shared_ptr<Head> head_module_;
};

}  // namespace dtrain
