// dtrain report FOLDER: the run in an output_dir as one HTML page.
#pragma once

#include "core/error.h"
#include "launcher/arguments.h"

namespace dtrain {

// Local; writes the page and prints its path. Reads a run that goes on as well.
ExitCode run_report(const Arguments& arguments);

}  // namespace dtrain
