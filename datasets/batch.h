// Batch: the named tensors of one micro-batch of one rank, on the CPU or moved to a device. A plain value.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "core/random.h"

namespace dtrain {

struct Batch {
  // "input_ids" [batch, length] int64, "attention_mask" [batch, length] int64 (1 real, 0 padding), "token_type_ids"
  // [batch, length] int64 when the model has them, "labels" [batch] int64 (classes), [batch] float (regression) or
  // [batch, num_labels] float (multi-label).
  std::map<std::string, at::Tensor> tensors;
  std::int64_t size = 0;                    // examples, fillers included
  std::vector<std::int64_t> example_index;  // [batch] position in the data set
  std::vector<std::int64_t> slot;           // [batch] position in the global batch of the step: keys random draws
  std::vector<float> example_weight;        // [batch] 1, or 0 for a filler: it must influence neither loss nor metric
  RandomKey random;                         // set by the trainer before forward
  double weight = 0;                        // what the loss sum of this micro-batch is made of: sum of example_weight
  std::int64_t num_tokens = 0;              // without padding, without fillers

  [[nodiscard]] bool has(const std::string& name) const { return tensors.contains(name); }
  [[nodiscard]] const at::Tensor& operator[](const std::string& name) const { return tensors.at(name); }
};

}  // namespace dtrain
