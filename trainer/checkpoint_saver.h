// CheckpointSaver: publishes the checkpoints of a run, and prunes older ones, in a thread of its own while the training
// goes on. One checkpoint at a time.
//
// Rank 0 writes. save() hands it a snapshot; settle(), once per step, tells all ranks what became of it at the same
// step. A failure becomes an Error on all ranks or, with `warn_on_failure`, a warning, and the next save goes on. The
// thread owns the snapshot and touches nothing else of the trainer's.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <future>
#include <limits>
#include <optional>
#include <string>

#include "core/error.h"
#include "dist/host_comm.h"
#include "trainer/checkpoint/checkpoint_snapshot.h"
#include "trainer/checkpoint/checkpoint_store.h"
#include "trainer/checkpoint/run_json.h"

namespace dtrain {

struct SaverOptions {
  bool in_background = true;     // false: save() returns when everything is on disk
  bool warn_on_failure = false;  // reliability.save_error = "warn": of writing, not of other failures
  std::int64_t save_total_limit = 0;
  std::string config_digest = {};
};

struct PublishedCheckpoint {
  std::int64_t step = 0;
  std::filesystem::path folder;
  std::string best;  // folder of the best model as of this checkpoint; empty: none is published
};

class CheckpointSaver {
 public:
  // `store` and `host` outlive it.
  CheckpointSaver(const CheckpointStore& store, HostComm& host, SaverOptions options);
  // Waits for the thread; a failure that nobody has heard of yet is logged.
  ~CheckpointSaver();
  CheckpointSaver(const CheckpointSaver&) = delete;
  CheckpointSaver& operator=(const CheckpointSaver&) = delete;

  // Whether a save has been given and not settled: the same on all ranks.
  [[nodiscard]] bool pending() const { return pending_step_.has_value(); }
  [[nodiscard]] bool in_background() const { return options_.in_background; }
  // From now on every failure is an Error: no later save will make up for it.
  void stop_on_failure() { options_.warn_on_failure = false; }

  // Collective; nothing may be pending. `snapshot` is called on rank 0 only, before save() returns. Where no thread can be
  // had the next settle() writes.
  void save(std::int64_t step, const std::function<CheckpointSnapshot()>& snapshot);

  // Collective. The checkpoint that has been published since the last call, if any, after at most `patience` seconds of
  // waiting; what rank 0 gives counts. Throws what the thread threw.
  [[nodiscard]] std::optional<PublishedCheckpoint> settle(double patience);
  static constexpr double kUntilDone = std::numeric_limits<double>::infinity();

  // Local: the same on all ranks when called by all. A save that was not begun because the last one was being written.
  void skip(std::int64_t step);

 private:
  struct Outcome {
    std::optional<Error> failure;
    std::string best;
  };
  [[nodiscard]] Outcome write(std::int64_t step, CheckpointSnapshot snapshot) const;

  const CheckpointStore& store_;
  HostComm& host_;
  SaverOptions options_;
  std::optional<std::int64_t> pending_step_;
  std::future<Outcome> outcome_;  // on rank 0, while pending
  std::int64_t skipped_ = 0;
};

// What run.json says about a run in `state`, with the newest published checkpoint of `store`.
[[nodiscard]] RunRecord run_record(const CheckpointStore& store, const TrainerState& state);

}  // namespace dtrain
