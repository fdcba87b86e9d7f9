// Replicas: the copies of the weights on the ranks, which must be the same bits at all times.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "dist/communicator.h"
#include "dist/host_comm.h"
#include "trainer/models/model.h"
#include "trainer/models/safetensors.h"
#include "trainer/optim/parameter_groups.h"

namespace dtrain {

// Collective. Parameters and buffers of rank 0 on every rank; then a digest of them is compared, and a difference is
// Error(kDisagree) that names the ranks.
void copy_from_first_rank(Model& model, const std::shared_ptr<Communicator>& communicator, HostComm& host);

// Collective. Buffers of rank 0 (running statistics) on every rank: of each rank's batches alone, they drift apart.
void copy_buffers_from_first_rank(Model& model, Communicator& communicator);

// Collective. Compares the digest of parameters and buffers between the ranks; `when` starts the message of the error.
void check_replicas(const Model& model, HostComm& host, const std::string& when);

// Collective. Compares weights and, where every rank has all of it, the optimizer's state, after `step`. A difference
// is Error(kDisagree) on all ranks that names the ranks in the minority and the first tensor in which they differ.
void check_drift(const std::vector<NamedParameter>& parameters, const NamedTensors& optimizer_state, std::int64_t step,
                 HostComm& host);

// Flips one bit of the largest element, as a fault of memory would: for tests. Local.
void flip_bit(const at::Tensor& tensor);

// Digest over names, shapes and bytes of all parameters and buffers. Local.
[[nodiscard]] std::string weights_digest(const Model& model);

}  // namespace dtrain
