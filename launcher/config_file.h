// The configuration file as all ranks see it: rank 0 reads it, the bytes travel.
#pragma once

#include <string>

#include "dist/host_comm.h"
#include "launcher/arguments.h"

namespace dtrain {

// Local. Throws Error(kUsage) when the file cannot be read: the command line names it.
[[nodiscard]] std::string read_config_file(const std::string& path);

// Collective. The bytes that rank 0 reads. Where another rank sees a file of that name too (a shared disk, or a copy),
// it must be the same; different command lines or files are Error(kDisagree) with the ranks.
[[nodiscard]] std::string share_config_file(const Arguments& arguments, HostComm& host);

}  // namespace dtrain
