// dtrain explain FOLDER: why the run in an output_dir stalled, from the dumps of its ranks.
#pragma once

#include "core/error.h"
#include "launcher/arguments.h"

namespace dtrain {

// Local; prints who held up the run and what each rank was doing. kDone also when there is nothing to explain;
// Error(kUsage) for a folder that is no output_dir, Error(kData) when no dump can be read.
ExitCode run_explain(const Arguments& arguments);

}  // namespace dtrain
