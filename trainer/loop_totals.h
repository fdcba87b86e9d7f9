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
  std::int64_t updates = 0;  // steps that changed the weights: what the learning rate follows

  [[nodiscard]] NamedTensors state() const;
  // Throws Error(kData) when the tensors are missing or have another shape.
  void load_state(const SafetensorsFile& file);
};

}  // namespace dtrain
