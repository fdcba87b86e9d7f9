// HostComm, Communicator and Reducer with threads as ranks; see tests/parallel/collective_checks.h.
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "dist/thread_ranks.h"
#include "tests/parallel/collective_checks.h"
#include "tests/parallel/reducer_checks.h"

namespace dtrain::test {
namespace {

class ThreadRanks : public testing::TestWithParam<int> {
 protected:
  ThreadRanks() { at::set_num_threads(1); }

  void run(const CommunicatorOptions& options, void (*check)(RankUnderTest&)) {
    run_thread_ranks(
        GetParam(),
        [&](ThreadRank& rank) {
          EXPECT_EQ(rank.communicator->backend(), GetParam() == 1 ? "single" : "threads");
          RankUnderTest under_test{rank.world, rank.host, *rank.communicator};
          check(under_test);
        },
        options);
  }
};
INSTANTIATE_TEST_SUITE_P(Ranks, ThreadRanks, testing::Values(1, 2, 3, 4));

TEST_P(ThreadRanks, HostMessages) { run({}, check_host_comm); }

TEST_P(ThreadRanks, Collectives) {
  run({}, [](RankUnderTest& rank) {
    check_all_collectives(rank, true);
    check_large(rank);
  });
}

TEST_P(ThreadRanks, CollectivesInTinyChunks) {
  run({.chunk_bytes = 1024}, [](RankUnderTest& rank) { check_all_collectives(rank, true); });
}

TEST_P(ThreadRanks, Gradients) {
  run_thread_ranks(GetParam(), [](ThreadRank& rank) { check_reducer(rank.world, rank.host, rank.communicator); });
}

}  // namespace
}  // namespace dtrain::test
