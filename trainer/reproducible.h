// training.reproducible: the same bits on 1, 2, 4, ... ranks.
//
// What it rests on: every micro-batch has the same examples, random draws and arithmetic whichever rank computes it
// (datasets/sample_order.h: shard_steps; kernels/dropout.h), their gradients and losses are summed as one binary tree
// (dist/reducer.h: fixed_tree), and everything after that is computed by all ranks alike.
#pragma once

#include <string>

#include <c10/core/Device.h>

#include "configs/train_config.h"
#include "trainer/models/model.h"

namespace dtrain {

// Throws Error(kUsage) when `training` asks for reproducible steps that `world_size` ranks cannot make.
void check_reproducible(const TrainingConfig& training, int world_size);
// The same for a model that keeps running statistics, which every rank takes from its own micro-batches.
void check_reproducible(const TrainingConfig& training, const Model& model);

// What the bits depend on besides data and settings: the kind of device, instruction set and number of threads. Local.
[[nodiscard]] std::string arithmetic_of(c10::Device device);

}  // namespace dtrain
