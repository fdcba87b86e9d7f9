// The optimizer's state divided over the ranks: stage 1 of ZeRO (Rajbhandari et al. 2020, arXiv 1910.02054). Each rank
// updates its share of the parameters from the gradients that all ranks have, then hands the new values to the others.
// Same numbers as without, bit for bit; 1/ranks of the state; one more message of the size of the parameters per step.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "dist/communicator.h"
#include "trainer/optim/optimizer.h"

namespace dtrain {

// Elements [offset, offset + count) of a parameter belong to rank `owner`.
struct ShareSegment {
  std::size_t parameter = 0;
  std::int64_t offset = 0;
  std::int64_t count = 0;
  int owner = 0;
};

// Divides parameters of these sizes, each rank getting nearly the same number of elements. In order of parameter and
// offset. `cut`: inside of parameters too, at multiples of 64 elements, each rank's part of one being in one piece;
// else whole parameters, the largest first, each to the rank that has the least. Parameters without elements: rank 0.
[[nodiscard]] std::vector<ShareSegment> divide_parameters(const std::vector<std::int64_t>& sizes, int ranks, bool cut);

// make_optimizer's optimizer, its state divided over the ranks of `communicator`; with one rank, just that optimizer.
// step() and state() are collective, and only rank 0 gets the state: the tensors, on the CPU, that the undivided
// optimizer would have, so a checkpoint does not depend on the division. load_state() is local and takes them.
[[nodiscard]] std::unique_ptr<Optimizer> make_sharded_optimizer(std::vector<NamedParameter> parameters,
                                                                const OptimizerOptions& options,
                                                                std::shared_ptr<Communicator> communicator);

}  // namespace dtrain
