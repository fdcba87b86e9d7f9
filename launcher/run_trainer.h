// run_trainer: the main function of a program that trains a model of its own. It does what `dtrain FILE.toml` does
// around a Trainer (ranks, settings, device, cores, output_dir, log files, signals, exit codes); the program brings the
// parts.
//
//   int main(int argc, char** argv) {
//     return dtrain::run_trainer(argc, argv, [](const dtrain::Job& job) {
//       dtrain::TrainerParts parts;
//       parts.model_init = [] { return std::make_shared<MyModel>(); };
//       parts.train_data = std::make_shared<MyData>("train");
//       return parts;
//     });
//   }
//
//   my_program FILE.toml [--set SECTION.KEY=VALUE]... [--bind fair|none]
//
// The settings of [training] and [callbacks] mean what they mean to dtrain; those of the other sections are for the
// program to read or to leave alone, and none of them is required. Uploads to the Hub are refused.
#pragma once

#include <functional>

#include <c10/core/Device.h>

#include "configs/train_config.h"
#include "dist/host_comm.h"
#include "dist/world.h"
#include "trainer/trainer.h"

namespace dtrain {

// Where the parts are made: settings read, device chosen, cores bound. The references outlive the training.
struct Job {
  const TrainConfig& config;
  const World& world;
  HostComm& host;
  c10::Device device;
  int threads;  // of this rank
};

// Collective. `make_parts` runs on every rank and need not fill in what a Job has: world, host, communicator, device,
// signals and dtrain's own callbacks are added. An empty collator is the stacking collator. `after`, on every rank,
// gets the Trainer when it has trained to the end, with the weights that were saved. Returns what main shall return.
int run_trainer(int argc, char** argv, const std::function<TrainerParts(const Job&)>& make_parts,
                const std::function<void(Trainer&, const TrainOutcome&)>& after = {});

}  // namespace dtrain
