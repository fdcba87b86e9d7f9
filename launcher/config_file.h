// The configuration file as the ranks see it.
#pragma once

#include <string>

#include "dist/host_comm.h"
#include "launcher/arguments.h"

namespace dtrain {

// Local. Throws Error(kUsage) when the file cannot be read: the command line names it.
[[nodiscard]] std::string read_config_file(const std::string& path);

// Collective. The bytes this rank works with: those of its own file of that name where there is one (a shared disk, or
// a copy that may differ), else those that rank 0 reads.
[[nodiscard]] std::string share_config_file(const Arguments& arguments, HostComm& host);

}  // namespace dtrain
