// dtrain sweep: searches settings of a configuration file. Each trial is one run of this program, with its own folder.
#pragma once

#include "core/error.h"
#include "dist/world.h"
#include "launcher/arguments.h"

namespace dtrain {

// Local, and of one process only. Trials that sweep.json calls finished are not run again; one that was cut short goes
// on from its last checkpoint. A failed trial is reported, and the sweep goes on. After SIGINT, SIGTERM or SIGUSR2 the
// running trial publishes a checkpoint, and the result is kPreempted. Throws when every trial has failed.
[[nodiscard]] ExitCode run_sweep(const Arguments& arguments, const World& world);

}  // namespace dtrain
