// dtrain launch: the supervisor. Starts a training under mpirun, srun or alone, starts it again when it has failed in a
// way that another attempt may not, and passes signals on.
#pragma once

#include "core/error.h"
#include "dist/world.h"
#include "launcher/arguments.h"

namespace dtrain {

// Local; one process. The result is the exit code of the last attempt, which need not be one of ExitCode: 137 for a run
// that was killed. One line per failed attempt goes to the log.
ExitCode run_launch(const Arguments& arguments, const World& world);

}  // namespace dtrain
