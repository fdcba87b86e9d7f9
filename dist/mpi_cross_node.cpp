#include <vector>

#include "dist/cross_node.h"
#include "dist/mpi_check.h"

namespace dtrain {
namespace {

MPI_Datatype mpi_type(c10::ScalarType type) {
  switch (type) {
    case c10::ScalarType::Float:
      return MPI_FLOAT;
    case c10::ScalarType::Double:
      return MPI_DOUBLE;
    case c10::ScalarType::Int:
      return MPI_INT32_T;
    case c10::ScalarType::Long:
      return MPI_INT64_T;
    default:
      DTRAIN_CHECK(false, "no MPI type for {}", c10::toString(type));
  }
  return MPI_DATATYPE_NULL;
}

class MpiCrossNode final : public CrossNode {
 public:
  MpiCrossNode(const World& world, std::size_t slots) : requests_(slots, MPI_REQUEST_NULL) {
    check_mpi(MPI_Comm_split(MPI_COMM_WORLD, world.local_rank, world.node_rank, &comm_), "MPI_Comm_split");
    MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN);
  }

  void start_sum(std::size_t slot, std::byte* data, c10::ScalarType type, std::int64_t count) override {
    check_mpi(
        MPI_Iallreduce(MPI_IN_PLACE, data, static_cast<int>(count), mpi_type(type), MPI_SUM, comm_, &requests_[slot]),
        "all_reduce between nodes");
  }

  void start_broadcast(std::size_t slot, std::byte* data, std::size_t bytes, int root_node) override {
    check_mpi(MPI_Ibcast(data, static_cast<int>(bytes), MPI_BYTE, root_node, comm_, &requests_[slot]),
              "broadcast between nodes");
  }

  bool test(std::size_t slot) override {
    for (MPI_Request& request : requests_) {
      if (request == MPI_REQUEST_NULL) continue;
      int done = 0;
      check_mpi(MPI_Test(&request, &done, MPI_STATUS_IGNORE), "a collective between nodes");
    }
    return requests_[slot] == MPI_REQUEST_NULL;
  }

  [[nodiscard]] bool idle() const override {
    for (const MPI_Request& request : requests_) {
      if (request != MPI_REQUEST_NULL) return false;
    }
    return true;
  }

 private:
  // Not freed here: that is collective and the other ranks may be gone; MPI_Finalize frees it.
  MPI_Comm comm_ = MPI_COMM_NULL;
  std::vector<MPI_Request> requests_;
};

}  // namespace

std::unique_ptr<CrossNode> make_mpi_cross_node(const World& world, std::size_t slots) {
  return std::make_unique<MpiCrossNode>(world, slots);
}

}  // namespace dtrain
