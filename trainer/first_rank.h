// on_first_rank: work that only rank 0 does (reading or writing a file, deciding) and whose outcome all ranks learn.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "dist/host_comm.h"

namespace dtrain {

// Collective. Rank 0 runs `work`; every rank returns what it returned, or throws the Error that it threw. `name` as for
// HostComm. Other exceptions leave rank 0 as they are.
std::string on_first_rank(HostComm& host, std::string_view name, const std::function<std::string()>& work);

}  // namespace dtrain
