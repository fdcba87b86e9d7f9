// dtrain doctor: is this machine, or this job of several ranks, fit for training?
#pragma once

#include "core/error.h"
#include "dist/mpi_session.h"
#include "launcher/arguments.h"

namespace dtrain {

// Collective. Prints a table of checks on rank 0; kDone when all pass, else kInternal. Takes a few seconds.
ExitCode run_doctor(const Arguments& arguments, MpiSession& session);

}  // namespace dtrain
