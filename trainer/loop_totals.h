// LoopTotals: what the loop sums up between logs and over the run. Part of a checkpoint (in optimizer.safetensors),
// because a run that resumes between two logs must log the same numbers as one that was never interrupted.
#pragma once

#include <cstdint>

#include "trainer/models/safetensors.h"

namespace dtrain {

struct LoopTotals {
  double loss_since_log = 0;  // sum over steps of their mean loss
  std::int64_t steps_since_log = 0;
  double loss = 0;  // the same over the whole run
  std::int64_t steps = 0;
  std::int64_t updates = 0;           // steps that changed the weights: what the learning rate follows
  std::int64_t tokens_since_log = 0;  // and what else LogWriter counts
  std::int64_t input_elements_since_log = 0;

  // Counts a step. With `filter` (logging_nan_inf_filter) a loss that is not finite counts as what the Trainer puts in
  // its place: the sum since the last log, divided by one more than the steps in it.
  void add_step(double mean_loss, bool filter);

  [[nodiscard]] NamedTensors state() const;
  // Throws Error(kData) when the tensors are missing or have another shape; that of the tokens may be missing.
  void load_state(const SafetensorsFile& file);
};

}  // namespace dtrain
