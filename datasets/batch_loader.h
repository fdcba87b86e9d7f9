// BatchLoader: the micro-batches of one rank for one epoch, collated ahead of use in a thread of its own.
// One consumer thread. An exception in the thread is rethrown by next().
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "datasets/batch.h"
#include "datasets/collators/collator.h"
#include "datasets/dataset.h"
#include "datasets/sample_order.h"

namespace dtrain {

class BatchLoader {
 public:
  // Starts at micro-batch `first` of `plan` (resume), keeps `prefetch` collated batches ready (at least 1).
  // slot of an example in micro-batch i: (i mod G) * world_size * batch_size + its place in the round, so a slot names
  // the same example of the step for every split of the global batch over ranks and micro-batches. `epoch` is for the
  // collator's random choices.
  BatchLoader(std::shared_ptr<const Dataset> dataset, std::shared_ptr<const Collator> collator,
              std::vector<MicroBatchPlan> plan, const ShardOptions& shard, std::int64_t accumulation_steps,
              std::int64_t first, std::int64_t prefetch, std::int64_t epoch = 0);
  ~BatchLoader();
  BatchLoader(const BatchLoader&) = delete;
  BatchLoader& operator=(const BatchLoader&) = delete;

  // The next micro-batch, or nothing at the end of the epoch.
  [[nodiscard]] std::optional<Batch> next();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace dtrain
