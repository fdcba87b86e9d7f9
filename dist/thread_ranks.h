// Threads as ranks: a job of several ranks inside one process, for tests and examples. The same code as between
// processes, on ordinary memory: HostComm over a blackboard, Communicator over the shared-memory algorithm.
#pragma once

#include <functional>
#include <memory>

#include "dist/communicator.h"
#include "dist/host_comm.h"
#include "dist/make_communicator.h"
#include "dist/world.h"

namespace dtrain {

// What one rank of the job gets; valid until its function returns.
struct ThreadRank {
  World world;
  HostComm& host;
  std::shared_ptr<Communicator> communicator;
};

// Runs `body` once per rank, each in a thread of its own, and returns when all have ended. When a rank throws, the
// waits of the others throw PeerFailed; the first exception that is not PeerFailed is rethrown here. LibTorch's thread
// settings are per process: call at::set_num_threads(1) first where ranks compute at the same time.
void run_thread_ranks(int world_size, const std::function<void(ThreadRank&)>& body,
                      const CommunicatorOptions& options = {});

}  // namespace dtrain
