// CrossNode: sums and copies between the nodes of a job, among the ranks with one local rank each. Operations are
// started per slot (a number below the number of slots the owner uses) and advance whenever test() is called.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include <c10/core/ScalarType.h>

#include "dist/host_comm.h"
#include "dist/world.h"

namespace dtrain {

class CrossNode {
 public:
  virtual ~CrossNode() = default;
  // Collective among the ranks with this local rank. In place; float, double, int32 or int64; the same bits on all
  // nodes.
  virtual void start_sum(std::size_t slot, std::byte* data, c10::ScalarType type, std::int64_t count) = 0;
  virtual void start_broadcast(std::size_t slot, std::byte* data, std::size_t bytes, int root_node) = 0;
  // Advances all slots; whether nothing is under way in `slot`. Throws Error when MPI fails.
  [[nodiscard]] virtual bool test(std::size_t slot) = 0;
  [[nodiscard]] virtual bool idle() const = 0;
};

// Collective over MPI_COMM_WORLD; `world` says how ranks form nodes. Every rank gets an object, useful only on local
// ranks that exist on every node.
[[nodiscard]] std::unique_ptr<CrossNode> make_mpi_cross_node(const World& world, std::size_t slots);

}  // namespace dtrain
