// dtrain FILE.toml: the whole run, from the settings to the files in output_dir.
#pragma once

#include "core/error.h"
#include "dist/mpi_session.h"
#include "launcher/arguments.h"

namespace dtrain {

// Collective. Returns kDone, or kPreempted when a signal stopped the run and a checkpoint is published; throws for the
// rest. A failure after output_dir is taken is written into its run.json.
ExitCode run_train(const Arguments& arguments, MpiSession& session);

}  // namespace dtrain
