// World: who this process is in the job. Immutable once made; a plain value.
#pragma once

#include <string>

namespace dtrain {

struct World {
  int rank = 0;        // 0 .. world_size-1
  int world_size = 1;  // ranks in the job
  int local_rank = 0;  // position among the ranks of this node
  int local_size = 1;  // ranks on this node
  int node_rank = 0;   // 0 .. num_nodes-1, in order of each node's lowest rank
  int num_nodes = 1;
  std::string host = "localhost";

  [[nodiscard]] bool is_first() const noexcept { return rank == 0; }
  [[nodiscard]] bool is_first_on_node() const noexcept { return local_rank == 0; }
};

}  // namespace dtrain
