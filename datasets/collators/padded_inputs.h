// What collators of texts share: ids side by side, padded on the right to the longest of the batch.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include <ATen/core/Tensor.h>

#include "datasets/batch.h"
#include "datasets/dataset.h"

namespace dtrain {

// "input_ids" and "attention_mask" of the examples, `size` and `num_tokens`. The length is rounded up to a multiple of
// `multiple`.
[[nodiscard]] Batch padded_inputs(std::span<const Example> examples, std::int32_t pad_id, std::int64_t multiple);

// The labels of single tokens, collected example by example.
class Targets {
 public:
  // `length` of the padded tokens that predict.
  explicit Targets(std::int64_t length) : length_(length) {}

  // Of the example that is being collected: the token at `position` predicts `label`.
  void add(std::int64_t position, std::int64_t label) {
    index_.push_back(static_cast<std::int64_t>(count_.size()) * length_ + position);
    labels_.push_back(label);
  }
  void end_example() {
    const auto all = static_cast<std::int64_t>(labels_.size());
    count_.push_back(all - counted_);
    counted_ = all;
  }
  void store(Batch& batch) const;

 private:
  std::int64_t length_;
  std::int64_t counted_ = 0;
  std::vector<std::int64_t> index_;
  std::vector<std::int64_t> labels_;
  std::vector<std::int64_t> count_;
};

}  // namespace dtrain
