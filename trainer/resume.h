// Resume: which checkpoint a run goes on from, and whether it is the same run.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "configs/train_config.h"
#include "core/json.h"
#include "dist/host_comm.h"
#include "trainer/checkpoint/checkpoint_snapshot.h"
#include "trainer/checkpoint/checkpoint_store.h"

namespace dtrain {

// What must be the same for the order of the examples to be the same; kept in a checkpoint's manifest.
struct RunFacts {
  int world_size = 1;
  std::string train_digest;  // of the training data

  [[nodiscard]] Json json() const { return {{"world_size", world_size}, {"train_digest", train_digest}}; }
};

// Collective. The folder to go on from, verified by rank 0, or nothing: resume_from_checkpoint is not set, or is
// "latest" and there is no checkpoint yet. Throws on all ranks: Error(kUsage) when the path is no checkpoint,
// Error(kData) when it is damaged, Error(kDisagree) listing every setting that makes the run another one. Other changed
// settings are logged.
[[nodiscard]] std::optional<std::filesystem::path> find_checkpoint(const TrainConfig& config,
                                                                   const CheckpointStore& store, const RunFacts& facts,
                                                                   HostComm& host);

// Collective. With auto_find_batch_size: the per_device_train_batch_size of the checkpoint that `config` goes on from.
// Nothing when there is none.
[[nodiscard]] std::optional<std::int64_t> batch_size_to_resume(const TrainConfig& config, HostComm& host);

// Local. The differences that forbid resuming `saved` as `current`; empty when there are none.
[[nodiscard]] std::string identity_differences(const TrainConfig& saved, const TrainConfig& current);

}  // namespace dtrain
