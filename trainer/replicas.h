// Replicas: the copies of the weights on the ranks, which must be the same bits at all times.
#pragma once

#include <memory>

#include "dist/communicator.h"
#include "dist/host_comm.h"
#include "trainer/models/model.h"

namespace dtrain {

// Collective. Parameters and buffers of rank 0 on every rank; then a digest of them is compared, and a difference is
// Error(kDisagree) that names the ranks.
void copy_from_first_rank(Model& model, const std::shared_ptr<Communicator>& communicator, HostComm& host);

// Collective. Buffers of rank 0 (running statistics) on every rank: of each rank's batches alone, they drift apart.
void copy_buffers_from_first_rank(Model& model, Communicator& communicator);

// Collective. Compares the digest of parameters and buffers between the ranks; `when` starts the message of the error.
void check_replicas(const Model& model, HostComm& host, const std::string& when);

// Digest over names, shapes and bytes of all parameters and buffers. Local.
[[nodiscard]] std::string weights_digest(const Model& model);

}  // namespace dtrain
