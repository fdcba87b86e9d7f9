// dtrain prepare FILE.toml: tokenises the data of a run beforehand, so that the run itself starts at once.
#pragma once

#include "core/error.h"
#include "dist/mpi_session.h"
#include "launcher/arguments.h"

namespace dtrain {

// Collective. Checks settings, model, tokenizer and data as a run would, builds the token stores that are missing, and
// prints a table of them.
ExitCode run_prepare(const Arguments& arguments, MpiSession& session);

}  // namespace dtrain
