// Checks of HostComm and Communicator that hold for every implementation: run with threads as ranks by unit_dist and
// with processes under mpirun by parallel_dist. All functions are collective and report through GoogleTest.
#pragma once

#include <functional>

#include "dist/communicator.h"
#include "dist/host_comm.h"
#include "dist/make_communicator.h"
#include "dist/world.h"

namespace dtrain::test {

// One rank of a job under test.
struct RankUnderTest {
  World world;
  HostComm& host;
  Communicator& communicator;
};

void check_host_comm(RankUnderTest& rank);
// Sums whose exact value is known in every type, over sizes around the chunk boundaries.
void check_exact_sums(RankUnderTest& rank);
// Random numbers: the same bits on all ranks and in a second run. `one_node`: also those of a sum in rank order.
void check_equal_bits(RankUnderTest& rank, bool one_node);
// More than the areas in flight hold, written past the caches.
void check_large(RankUnderTest& rank);
void check_broadcast_and_gather(RankUnderTest& rank);
void check_many_small(RankUnderTest& rank);
// Several collectives started before the first is waited for.
void check_overlapping(RankUnderTest& rank);

inline void check_all_collectives(RankUnderTest& rank, bool one_node) {
  check_exact_sums(rank);
  check_equal_bits(rank, one_node);
  check_broadcast_and_gather(rank);
  check_many_small(rank);
  check_overlapping(rank);
}

}  // namespace dtrain::test
