// Resume: which checkpoint a run goes on from, and whether it is the same run.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <set>
#include <string>

#include "configs/train_config.h"
#include "core/json.h"
#include "dist/host_comm.h"
#include "trainer/checkpoint/checkpoint_snapshot.h"
#include "trainer/checkpoint/checkpoint_store.h"

namespace dtrain {

// What a checkpoint's manifest says about the run that wrote it, and the run that reads it about itself.
struct RunFacts {
  int world_size = 1;
  std::string train_digest;   // of the training data
  std::int64_t examples = 0;  // in it; not written
  std::string arithmetic;     // reproducible.h; empty without training.reproducible
  // The gradient_accumulation_steps that this run has had so far, each on its number of ranks: any of them in a
  // settings file means that the file has not been changed.
  std::set<std::int64_t> accumulations = {};

  [[nodiscard]] Json json() const;
};

// Collective. The folder to go on from, verified by rank 0, or nothing: resume_from_checkpoint is not set, or is
// "latest" and there is no checkpoint yet. Throws on all ranks: Error(kUsage) when the path is no checkpoint,
// Error(kData) when it is damaged, Error(kDisagree) listing everything that makes the run another one. Other changed
// settings are logged, and so is another number of ranks, with which the run goes on as long as a step has the same
// examples.
[[nodiscard]] std::optional<std::filesystem::path> find_checkpoint(const TrainConfig& config,
                                                                   const CheckpointStore& store, const RunFacts& facts,
                                                                   HostComm& host);

// Local. RunFacts::accumulations of the run that wrote a checkpoint.
[[nodiscard]] std::set<std::int64_t> accumulations_of(const std::filesystem::path& checkpoint);

// Collective. `config` with what the run takes over from the checkpoint that it goes on from, if there is one: with
// auto_find_batch_size its per_device_train_batch_size, and on another number of ranks the
// gradient_accumulation_steps that make a step of as many examples. Throws Error(kUsage) when there are none.
[[nodiscard]] TrainConfig config_to_resume(TrainConfig config, HostComm& host);

// Local. The differences that forbid resuming `saved` as `current`; empty when there are none.
[[nodiscard]] std::string identity_differences(const TrainConfig& saved, const TrainConfig& current);

}  // namespace dtrain
