// BART (Lewis et al. 2019): an encoder that reads a text and a decoder that writes one, as
// BartForConditionalGeneration of transformers: post-LayerNorm blocks, learned positions, one table of words for
// inputs and scores. Parameter names in files are those of transformers.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "trainer/models/generation.h"
#include "trainer/models/transformer.h"

namespace dtrain {

class BartModel final : public TransformerModel, public TextGenerator {
 public:
  // Throws Error(kUsage) for a task that it has no head for.
  BartModel(const BartConfig& config, HeadConfig head);
  ~BartModel() override;

  [[nodiscard]] std::int64_t max_positions() const override { return config_.max_positions; }
  [[nodiscard]] std::int64_t vocab_size() const override { return config_.vocab_size; }
  [[nodiscard]] std::string model_type() const override { return "bart"; }

  [[nodiscard]] std::string base_prefix() const override { return "model."; }
  [[nodiscard]] std::string head_weight() const override { return {}; }
  [[nodiscard]] bool may_be_missing(const std::string& /*parameter*/) const override { return false; }
  [[nodiscard]] bool is_tied_copy(const std::string& tensor) const override;
  [[nodiscard]] bool must_be_zero(const std::string& tensor) const override { return tensor == "final_logits_bias"; }
  [[nodiscard]] InitialValue initial_value(const std::string& parameter) const override;

  // Keys and values of earlier tokens are kept, and those of the text that is read are computed once.
  [[nodiscard]] std::unique_ptr<StepDecoder> start_decoder(const Batch& batch) override;

 protected:
  [[nodiscard]] ModelOutput run(const Batch& batch, const Inputs& inputs, const DropoutKeys& keys) override;
  [[nodiscard]] std::string architecture() const override { return "BartForConditionalGeneration"; }
  [[nodiscard]] std::int64_t pad_token_id() const override { return config_.pad_token_id; }
  [[nodiscard]] std::int64_t num_types() const override { return 0; }

 private:
  class Stacks;
  class Decoding;

  BartConfig config_;
  std::shared_ptr<Stacks> model_;
};

}  // namespace dtrain
