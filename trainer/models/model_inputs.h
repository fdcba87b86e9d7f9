// What a transformer takes out of a batch, checked.
#pragma once

#include <ATen/core/Tensor.h>

#include "datasets/batch.h"
#include "trainer/kernels/dropout.h"
#include "trainer/models/model.h"

namespace dtrain {

struct ModelInputs {
  at::Tensor input_ids;       // [batch, length] int64
  at::Tensor attention_mask;  // [batch, length]; undefined when the batch has none
  at::Tensor token_type_ids;  // [batch, length]; undefined when the batch has none
  bool full = false;          // known to be without padding: the mask need not be applied
  DropoutKeys dropout;        // active in training mode only

  // What attention has to look at: undefined when all positions are real.
  [[nodiscard]] at::Tensor mask() const { return full ? at::Tensor() : attention_mask; }
};

// Throws Error(kData) when tensors are missing or of the wrong shape, when sequences are longer than the model's
// positions and (where they lie on the CPU) when ids are not below `model`'s vocab_size or `type_vocab_size`.
[[nodiscard]] ModelInputs read_inputs(const Batch& batch, const Model& model, std::int64_t type_vocab_size);

}  // namespace dtrain
