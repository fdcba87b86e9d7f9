// ClassifierModel: what every model with a sequence-classification head shares: checking of the batch, loss,
// config.json, and what loading and drawing of weights must know about the parameters.
#pragma once

#include <cstdint>
#include <string>

#include <ATen/core/Tensor.h>

#include "trainer/kernels/dropout.h"
#include "trainer/models/model_config.h"

namespace dtrain {

// How a parameter is drawn when no file has it.
struct InitialValue {
  double mean = 0;
  double deviation = 0;        // 0: the constant `mean`
  std::int64_t zero_row = -1;  // this row is 0
};

class ClassifierModel : public Model {
 public:
  [[nodiscard]] ModelOutput forward(const Batch& batch) final;
  [[nodiscard]] Json config_json() const final;

  // "bert." or "transformer.": what all parameters except the head's start with, and what files may leave out.
  [[nodiscard]] virtual std::string base_prefix() const = 0;
  // The tensor whose first dimension is the number of labels.
  [[nodiscard]] virtual std::string head_weight() const = 0;
  // Parameters that a pretrained model may lack: the head and, for BERT, the pooler.
  [[nodiscard]] virtual bool may_be_missing(const std::string& parameter) const = 0;
  [[nodiscard]] virtual InitialValue initial_value(const std::string& parameter) const = 0;

 protected:
  explicit ClassifierModel(ClassifierConfig config) : classifier_config_(std::move(config)) {}

  struct Inputs {
    at::Tensor ids;    // [batch, length]
    at::Tensor mask;   // [batch, length] or undefined
    at::Tensor types;  // [batch, length] or undefined
  };
  // [batch, num_labels], any floating type
  [[nodiscard]] virtual at::Tensor logits(const Inputs& inputs, const DropoutKeys& keys) = 0;
  [[nodiscard]] virtual std::string architecture() const = 0;
  [[nodiscard]] virtual std::int64_t pad_token_id() const = 0;
  [[nodiscard]] virtual std::int64_t num_types() const = 0;  // token types that the model tells apart

  [[nodiscard]] std::int64_t num_labels() const { return classifier_config_.num_labels; }
  // Whether padding is left out where the kernels can do without it.
  [[nodiscard]] bool packs_tokens() const { return !classifier_config_.compute_padding; }

 private:
  [[nodiscard]] Inputs checked_inputs(const Batch& batch) const;
  [[nodiscard]] at::Tensor losses(const at::Tensor& logits, const Batch& batch) const;

  ClassifierConfig classifier_config_;
};

// The value for every parameter that has none: drawn from Philox, keyed by seed and name, so that it depends neither on
// the other parameters nor on the machine.
void draw_parameter(at::Tensor parameter, const std::string& name, const InitialValue& value, std::uint64_t seed);

}  // namespace dtrain
