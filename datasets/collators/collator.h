// Collator: examples to the tensors of one micro-batch. Pure and thread-safe; called from the prefetch thread.
#pragma once

#include <cstdint>
#include <span>

#include "datasets/batch.h"
#include "datasets/dataset.h"

namespace dtrain {

// A token without a label, as the Hub's libraries mark it.
constexpr std::int64_t kNoLabel = -100;

// What random choices may depend on.
struct CollateKey {
  std::int64_t epoch = 0;               // -1 in evaluation
  std::span<const std::int64_t> index;  // of the examples in the data set
};

class Collator {
 public:
  virtual ~Collator() = default;
  // Fills `tensors`, `size`, `num_tokens` and, where tokens have labels, `target_count`; the loader fills indices,
  // slots and weights.
  [[nodiscard]] virtual Batch collate(std::span<const Example> examples, const CollateKey& key) const = 0;
};

}  // namespace dtrain
