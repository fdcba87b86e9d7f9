// make_communicator: the Communicator that fits the job and the device.
//   one rank                    single: nothing moves
//   CPU, one node               shared memory
//   CPU, several nodes          shared memory inside each node, MPI between them ("mpi")
//   CUDA                        NCCL, from libdtrain_cuda.so
#pragma once

#include <cstdint>
#include <memory>

#include <c10/core/Device.h>

#include "dist/communicator.h"
#include "dist/host_comm.h"
#include "dist/world.h"

namespace dtrain {

struct CommunicatorOptions {
  double deadline_seconds = kDefaultDeadlineSeconds;
  // Bytes of a tensor that move in one piece through shared memory; 0 chooses by the number of ranks of the node.
  std::int64_t chunk_bytes = 0;
  // Treats every `ranks_per_node` consecutive ranks as a node of their own; 0 means the real nodes. For tests.
  int ranks_per_node = 0;
};

// Collective. `host` must outlive the communicator; all ranks give equal options and device types. On a GPU the device
// must have been chosen with GpuBackend::set_device. Throws Error when shared memory, MPI or NCCL cannot be set up.
[[nodiscard]] std::shared_ptr<Communicator> make_communicator(const World& world, HostComm& host, c10::Device device,
                                                              const CommunicatorOptions& options = {});

// `world` as if every `ranks_per_node` consecutive ranks were a node.
[[nodiscard]] World regrouped(const World& world, int ranks_per_node);

}  // namespace dtrain
