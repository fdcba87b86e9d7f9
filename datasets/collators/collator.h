// Collator: examples to the tensors of one micro-batch. Pure and thread-safe; called from the prefetch thread.
#pragma once

#include <span>

#include "datasets/batch.h"
#include "datasets/dataset.h"

namespace dtrain {

class Collator {
 public:
  virtual ~Collator() = default;
  // Fills `tensors`, `size` and `num_tokens`; the loader fills indices, slots and weights.
  [[nodiscard]] virtual Batch collate(std::span<const Example> examples) const = 0;
};

}  // namespace dtrain
