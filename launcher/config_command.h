// dtrain config: the resolved settings with the origin of each, or the page about all settings.
#pragma once

#include "core/error.h"
#include "launcher/arguments.h"

namespace dtrain {

// Local; prints to standard output. Warnings go to the log.
ExitCode run_config(const Arguments& arguments);

}  // namespace dtrain
