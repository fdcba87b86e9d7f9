// BERT for sequence classification: encoder with post-LayerNorm blocks, pooler over the first token, linear head with
// bias. Equal to transformers' BertForSequenceClassification; parameter names are those of its files.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "trainer/models/classifier.h"

namespace dtrain {

class BertModule;

class BertForSequenceClassification final : public ClassifierModel {
 public:
  BertForSequenceClassification(const BertConfig& config, ClassifierConfig classifier);
  ~BertForSequenceClassification() override;

  [[nodiscard]] std::int64_t max_positions() const override { return config_.max_positions; }
  [[nodiscard]] std::int64_t vocab_size() const override { return config_.vocab_size; }
  [[nodiscard]] std::string model_type() const override { return "bert"; }

  [[nodiscard]] std::string base_prefix() const override { return "bert."; }
  [[nodiscard]] std::string head_weight() const override { return "classifier.weight"; }
  [[nodiscard]] bool may_be_missing(const std::string& parameter) const override;
  [[nodiscard]] InitialValue initial_value(const std::string& parameter) const override;

 protected:
  [[nodiscard]] at::Tensor logits(const Inputs& inputs, const DropoutKeys& keys) override;
  [[nodiscard]] std::string architecture() const override { return "BertForSequenceClassification"; }
  [[nodiscard]] std::int64_t pad_token_id() const override { return config_.pad_token_id; }
  [[nodiscard]] std::int64_t num_types() const override { return config_.type_vocab_size; }

 private:
  BertConfig config_;
  std::shared_ptr<BertModule> bert_;
  std::shared_ptr<class LinearLayer> classifier_;
};

}  // namespace dtrain
