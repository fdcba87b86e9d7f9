// TransformerModel: what the models of the Hub's transformers library share here: checking of the batch, losses of the
// heads, config.json, and what loading and drawing of weights must know about the parameters.
#pragma once

#include <cstdint>
#include <string>

#include <ATen/core/Tensor.h>

#include "trainer/kernels/dense.h"
#include "trainer/kernels/dropout.h"
#include "trainer/kernels/token_layout.h"
#include "trainer/models/model_config.h"

namespace dtrain {

// How a parameter is drawn when no file has it.
struct InitialValue {
  double mean = 0;
  double deviation = 0;        // 0: the constant `mean`
  std::int64_t zero_row = -1;  // this row is 0
};

// Parameters are named as in model.safetensors (Model::stored_name) wherever a name is asked for.
class TransformerModel : public Model {
 public:
  [[nodiscard]] ModelOutput forward(const Batch& batch) final;
  [[nodiscard]] Json config_json() const final;
  [[nodiscard]] Task task() const { return head_.task; }

  // "bert." or "transformer.": what all parameters except the head's start with, and what files may leave out.
  [[nodiscard]] virtual std::string base_prefix() const = 0;
  // The tensor whose first dimension is the number of labels; of no meaning for language models.
  [[nodiscard]] virtual std::string head_weight() const = 0;
  // Parameters that a pretrained model may lack: the head and, for BERT, the pooler.
  [[nodiscard]] virtual bool may_be_missing(const std::string& parameter) const = 0;
  // Tensors of files that repeat a parameter under another name.
  [[nodiscard]] virtual bool is_tied_copy(const std::string& tensor) const = 0;
  // Tensors of files that the model does without, which is right for zeros only.
  [[nodiscard]] virtual bool must_be_zero(const std::string& /*tensor*/) const { return false; }
  [[nodiscard]] virtual InitialValue initial_value(const std::string& parameter) const = 0;

 protected:
  explicit TransformerModel(HeadConfig head) : head_(std::move(head)) {}

  struct Inputs {
    at::Tensor ids;    // [batch, length]
    at::Tensor mask;   // [batch, length] or undefined
    at::Tensor types;  // [batch, length] or undefined
  };
  [[nodiscard]] virtual ModelOutput run(const Batch& batch, const Inputs& inputs, const DropoutKeys& keys) = 0;
  [[nodiscard]] virtual std::string architecture() const = 0;
  [[nodiscard]] virtual std::int64_t pad_token_id() const = 0;
  [[nodiscard]] virtual std::int64_t num_types() const = 0;  // token types that the model tells apart

  // What run() ends with. Logits: [batch, num_labels] or [targets, num_labels], any floating type.
  [[nodiscard]] ModelOutput sequence_output(const at::Tensor& logits, const Batch& batch) const;
  [[nodiscard]] ModelOutput token_output(const at::Tensor& logits, const Batch& batch) const;
  // `hidden` [targets, size]
  [[nodiscard]] ModelOutput vocabulary_output(const at::Tensor& hidden, const DensePart& vocabulary,
                                              const Batch& batch) const;
  // [targets, hidden]: the rows of the tokens that predict.
  [[nodiscard]] static at::Tensor target_rows(const at::Tensor& hidden, const TokenLayout& layout, const Batch& batch);

  [[nodiscard]] const HeadConfig& head() const { return head_; }
  [[nodiscard]] std::int64_t num_labels() const { return head_.num_labels; }
  // Whether padding is left out where the kernels can do without it.
  [[nodiscard]] bool packs_tokens() const { return !head_.compute_padding; }
  [[nodiscard]] bool recomputes() const { return head_.gradient_checkpointing && is_training(); }
  // NEFTune's noise added to the embeddings [rows, size] of a batch; `embedded` itself unless training with it.
  [[nodiscard]] at::Tensor with_noise(const at::Tensor& embedded, const DropoutKeys& keys,
                                      const at::Tensor& mask) const;
  [[nodiscard]] Inputs checked_inputs(const Batch& batch, const std::string& ids, const std::string& mask) const;

 private:
  void add_losses(const at::Tensor& each, const Batch& batch, ModelOutput& output) const;

  HeadConfig head_;
};

// Losses [batch] of whole sequences as the head's problem has them, from `logits` [batch, num_labels] float32 and the
// batch's "labels". Labels that do not fit are Error(kData).
[[nodiscard]] at::Tensor sequence_losses(const HeadConfig& head, const at::Tensor& logits, const Batch& batch);

// The value for every parameter that has none: drawn from Philox, keyed by seed and name, so that it depends neither on
// the other parameters nor on the machine.
void draw_parameter(at::Tensor parameter, const std::string& name, const InitialValue& value, std::uint64_t seed);

}  // namespace dtrain
