// dtrain slurm: a batch script for Slurm whose job survives preemption, its time limit and failures.
#pragma once

#include <string>

#include "configs/train_config.h"
#include "core/error.h"
#include "launcher/arguments.h"

namespace dtrain {

// Local. Writes the script and, when asked to, submits it with sbatch. Settings that cannot be read, a script that is
// there already with other content, and a refusal of sbatch are Error(kUsage).
ExitCode run_slurm(const Arguments& arguments);

// The text of the script. `program`, `folder` (where it runs) and `arguments.file` are absolute.
[[nodiscard]] std::string slurm_script(const Arguments& arguments, const TrainConfig& config,
                                       const std::string& program, const std::string& folder);

}  // namespace dtrain
