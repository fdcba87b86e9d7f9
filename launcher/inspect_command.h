// dtrain inspect FOLDER: which checkpoints a run has, whether they are intact, and what they are of.
#pragma once

#include <string>

#include "core/error.h"
#include "launcher/arguments.h"

namespace dtrain {

// Local; reads every byte of every checkpoint and changes nothing; a run may be going on. kData when a checkpoint is
// damaged. Throws Error(kUsage) when the folder is neither a run's nor a checkpoint.
[[nodiscard]] ExitCode run_inspect(const Arguments& arguments);

// The text of `dtrain inspect --help`.
[[nodiscard]] std::string inspect_help();

}  // namespace dtrain
