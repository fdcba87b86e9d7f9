// Checks of Reducer against plain autograd over all examples in one process; run with threads and with processes as
// ranks. All functions are collective and report through GoogleTest.
#pragma once

#include <memory>

#include "dist/communicator.h"
#include "dist/host_comm.h"
#include "dist/world.h"

namespace dtrain::test {

void check_reducer(const World& world, HostComm& host, const std::shared_ptr<Communicator>& communicator);

}  // namespace dtrain::test
