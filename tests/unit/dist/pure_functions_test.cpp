// The functions of dist that only compute: core shares, launcher detection, grouping, the cut of the shared block.
#include <map>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "dist/core_binding.h"
#include "dist/make_communicator.h"
#include "dist/mpi_session.h"
#include "dist/shared_channel.h"

namespace dtrain::test {
namespace {

using Ids = std::vector<int>;

TEST(FairShare, WholeNeighbouringCores) {
  // Two packages of two cores with two hyper-threads each, numbered as Linux does: siblings are 4 apart.
  std::vector<Cpu> cpus;
  for (int id = 0; id < 8; ++id) cpus.push_back({id, (id % 4) / 2, id % 2});
  EXPECT_EQ(fair_share(cpus, 0, 1).threads, 4);
  EXPECT_EQ(fair_share(cpus, 0, 2).cpus, (Ids{0, 1, 4, 5}));
  EXPECT_EQ(fair_share(cpus, 1, 2).cpus, (Ids{2, 3, 6, 7}));
  EXPECT_EQ(fair_share(cpus, 1, 2).threads, 2);
  EXPECT_EQ(fair_share(cpus, 3, 4).cpus, (Ids{3, 7}));
  EXPECT_EQ(fair_share(cpus, 3, 4).threads, 1);
}

TEST(FairShare, SizesDifferByOneAndCoverAll) {
  for (int cores = 1; cores <= 17; ++cores) {
    std::vector<Cpu> cpus;
    for (int id = 0; id < cores; ++id) cpus.push_back({id * 3, 0, id});
    for (int parts = 1; parts <= cores; ++parts) {
      std::set<int> seen;
      for (int index = 0; index < parts; ++index) {
        const CoreShare share = fair_share(cpus, index, parts);
        EXPECT_EQ(share.threads, static_cast<int>(share.cpus.size()));
        EXPECT_GE(share.threads, cores / parts);
        EXPECT_LE(share.threads, (cores + parts - 1) / parts);
        for (const int cpu : share.cpus) EXPECT_TRUE(seen.insert(cpu).second) << cpu << " given twice";
      }
      EXPECT_EQ(seen.size(), static_cast<std::size_t>(cores));
    }
  }
}

TEST(FairShare, MoreRanksThanCores) {
  const std::vector<Cpu> cpus = {{0, 0, 0}, {1, 0, 1}};
  for (int index = 0; index < 5; ++index) {
    const CoreShare share = fair_share(cpus, index, 5);
    EXPECT_EQ(share.cpus, (Ids{index % 2}));
    EXPECT_EQ(share.threads, 1);
  }
  EXPECT_THROW(static_cast<void>(fair_share({}, 0, 1)), Error);
}

LaunchedBy launched_with(const std::map<std::string, std::string>& variables) {
  return launched_by([&](const char* name) {
    const auto found = variables.find(name);
    return found == variables.end() ? std::string() : found->second;
  });
}

TEST(LaunchedBy, KnowsTheLaunchers) {
  EXPECT_FALSE(launched_with({}).mpi);
  EXPECT_FALSE(launched_with({{"SLURM_JOB_ID", "7"}, {"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "4"}}).mpi)
      << "a batch script is no step";
  EXPECT_FALSE(launched_with({{"SLURM_STEP_NUM_TASKS", "1"}, {"SLURM_PROCID", "0"}, {"PMIX_RANK", "0"}}).mpi)
      << "a shell in an allocation";
  const LaunchedBy srun = launched_with({{"SLURM_STEP_NUM_TASKS", "8"}, {"SLURM_PROCID", "3"}, {"PMIX_RANK", "3"}});
  EXPECT_TRUE(srun.connects);
  EXPECT_FALSE(launched_with({{"SLURM_STEP_NUM_TASKS", "8"}, {"SLURM_PROCID", "3"}}).connects) << "srun --mpi=none";
  EXPECT_TRUE(srun.mpi);
  EXPECT_EQ(srun.size, 8);
  EXPECT_EQ(srun.launcher, "srun");
  // mpirun inside an allocation: its own variables count.
  const LaunchedBy mpirun =
      launched_with({{"OMPI_COMM_WORLD_SIZE", "2"}, {"SLURM_STEP_NUM_TASKS", "1"}, {"SLURM_PROCID", "0"}});
  EXPECT_TRUE(mpirun.mpi);
  EXPECT_EQ(mpirun.size, 2);
  EXPECT_TRUE(launched_with({{"PMI_SIZE", "4"}}).mpi);
  EXPECT_TRUE(launched_with({{"PMIX_RANK", "1"}}).mpi);
}

TEST(Regrouped, EveryRankHasOnePlace) {
  for (int size = 1; size <= 9; ++size) {
    for (int per_node = 1; per_node <= 5; ++per_node) {
      std::set<std::pair<int, int>> places;
      for (int rank = 0; rank < size; ++rank) {
        World world;
        world.rank = rank;
        world.world_size = size;
        const World result = regrouped(world, per_node);
        EXPECT_EQ(result.rank, rank);
        EXPECT_EQ(result.num_nodes, (size + per_node - 1) / per_node);
        EXPECT_LT(result.node_rank, result.num_nodes);
        EXPECT_LT(result.local_rank, result.local_size);
        EXPECT_TRUE(places.emplace(result.node_rank, result.local_rank).second);
      }
    }
  }
}

TEST(PlanChannel, BlocksStayWithinTheBudget) {
  for (const int local : {1, 2, 3, 8, 64, 192}) {
    for (const int nodes : {1, 16}) {
      World world;
      world.local_size = local;
      world.num_nodes = nodes;
      world.world_size = local * nodes;
      const ChannelPlan plan = plan_channel(world, local, 0);
      EXPECT_EQ(plan.chunk_bytes % (64 * static_cast<std::size_t>(plan.owners)), 0U);
      EXPECT_GT(plan.chunk_bytes, 0U);
      EXPECT_LT(plan.block_bytes(), std::size_t{140} << 20U) << local << " x " << nodes;
    }
  }
}

}  // namespace
}  // namespace dtrain::test
