// A whole training around a Trainer, whoever brings its parts: the command train, or a program of somebody's own.
#pragma once

#include <functional>

#include "configs/train_config.h"
#include "core/error.h"
#include "dist/mpi_session.h"
#include "launcher/arguments.h"
#include "launcher/run_trainer.h"

namespace dtrain {

struct TrainingHooks {
  std::function<TrainerParts(const Job&)> make_parts;                  // as run_trainer() says
  std::function<void(Trainer&)> on_plan = {};                          // on rank 0, before the plan is logged
  std::function<void(Trainer&, const TrainOutcome&)> on_trained = {};  // on all ranks
};

// Collective. `config` is agreed between the ranks. A failure is recorded in run.json and thrown on.
[[nodiscard]] ExitCode run_training(const TrainConfig& config, const Arguments& arguments, MpiSession& session,
                                    const TrainingHooks& hooks);

}  // namespace dtrain
