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
  // Where single tokens have labels: "labels" [targets] int64, in the order of the examples, and "targets" [targets]
  // int64: example * length + position of the token that predicts each. With an encoder and a decoder these are tokens
  // of the decoder, which reads "decoder_input_ids" and "decoder_attention_mask" [batch, decoder length] int64.
  std::map<std::string, at::Tensor> tensors;
  std::int64_t size = 0;                    // examples, fillers included
  std::vector<std::int64_t> example_index;  // [batch] position in the data set
  std::vector<std::int64_t> slot;           // [batch] position in the global batch of the step: keys random draws
  std::vector<float> example_weight;        // [batch] 1, or 0 for a filler: it must influence neither loss nor metric
  std::vector<std::int64_t> target_count;   // [batch] labels of each example; empty: each has one
  RandomKey random;                         // set by the trainer before forward
  double weight = 0;            // what the loss sum of this micro-batch is made of: sum of example_weight x labels
  std::int64_t num_tokens = 0;  // of input_ids, without padding, without fillers

  [[nodiscard]] std::int64_t labels_of(std::size_t example) const {
    return target_count.empty() ? 1 : target_count[example];
  }
  [[nodiscard]] bool has(const std::string& name) const { return tensors.contains(name); }
  [[nodiscard]] const at::Tensor& operator[](const std::string& name) const { return tensors.at(name); }
};

}  // namespace dtrain
