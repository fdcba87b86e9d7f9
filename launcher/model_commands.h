// dtrain evaluate FILE.toml and dtrain predict FILE.toml: what a trained model does with data.
#pragma once

#include "core/error.h"
#include "dist/mpi_session.h"
#include "launcher/arguments.h"

namespace dtrain {

// Collective. Rank 0 prints and writes the result.
ExitCode run_model(const Arguments& arguments, MpiSession& session);

}  // namespace dtrain
