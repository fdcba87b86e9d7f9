// The dist layer with processes as ranks; see collective_checks.h. With one rank it also runs without mpirun.
#include <algorithm>
#include <cstdint>
#include <set>
#include <string>

#include <dirent.h>
#include <sched.h>
#include <unistd.h>

#include <c10/core/Device.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include "dist/agreement.h"
#include "dist/core_binding.h"
#include "dist/make_communicator.h"
#include "tests/parallel/collective_checks.h"
#include "tests/parallel/mpi_main.h"
#include "tests/parallel/reducer_checks.h"

namespace dtrain::test {
namespace {

void run_collectives(const CommunicatorOptions& options, const char* backend) {
  const auto communicator = make_communicator(session().world(), session().host(), c10::Device(c10::kCPU), options);
  EXPECT_EQ(communicator->backend(), session().world().world_size == 1 ? "single" : backend);
  RankUnderTest rank{session().world(), session().host(), *communicator};
  check_all_collectives(rank, options.ranks_per_node == 0);
  if (options.chunk_bytes == 0) check_large(rank);
}

TEST(Session, KnowsTheJob) {
  const World& world = session().world();
  EXPECT_EQ(world.num_nodes, 1);
  EXPECT_EQ(world.local_rank, world.rank);
  EXPECT_EQ(world.local_size, world.world_size);
  EXPECT_EQ(session().host().rank(), world.rank);
  const auto hosts = session().host().all_gather("hosts", world.host);
  EXPECT_EQ(std::set<std::string>(hosts.begin(), hosts.end()).size(), 1U);
}

TEST(HostMessages, AllFunctions) {
  const auto communicator = make_communicator(session().world(), session().host(), c10::Device(c10::kCPU));
  RankUnderTest rank{session().world(), session().host(), *communicator};
  check_host_comm(rank);
}

TEST(Collectives, SharedMemory) { run_collectives({}, "shared memory"); }
TEST(Collectives, SharedMemoryInTinyChunks) { run_collectives({.chunk_bytes = 2048}, "shared memory"); }
TEST(Collectives, EveryRankANode) { run_collectives({.ranks_per_node = 1}, "mpi"); }
TEST(Collectives, EveryRankANodeInTinyChunks) { run_collectives({.chunk_bytes = 8192, .ranks_per_node = 1}, "mpi"); }

TEST(Collectives, TwoRanksANode) {
  run_collectives({.ranks_per_node = 2}, session().world().world_size > 2 ? "mpi" : "shared memory");
}

// Four ranks make nodes of three and one: only local rank 0 exists on both.
TEST(Collectives, NodesOfDifferentSize) {
  run_collectives({.chunk_bytes = 16384, .ranks_per_node = 3},
                  session().world().world_size > 3 ? "mpi" : "shared memory");
}

TEST(Gradients, SharedMemory) {
  const auto communicator = make_communicator(session().world(), session().host(), c10::Device(c10::kCPU));
  check_reducer(session().world(), session().host(), communicator);
}

TEST(Gradients, BetweenNodes) {
  const auto communicator =
      make_communicator(session().world(), session().host(), c10::Device(c10::kCPU), {.ranks_per_node = 2});
  check_reducer(session().world(), session().host(), communicator);
}

TEST(Agreement, EqualAndDifferent) {
  HostComm& host = session().host();
  agree(host, "settings", {{"seed", "42"}, {"model", std::string(100'000, 'x')}});
  if (host.size() == 1) return;
  const bool last = host.rank() == host.size() - 1;
  std::string message;
  try {
    agree(host, "settings", {{"seed", last ? "7" : "42"}, {"same", "s"}});
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kDisagree);
    message = error.what();
  }
  EXPECT_NE(message.find("seed"), std::string::npos) << message;
  EXPECT_NE(message.find(fmt::format("rank {} has \"7\"", host.size() - 1)), std::string::npos) << message;
  EXPECT_EQ(message.find("same"), std::string::npos) << message;
  const auto all = host.all_gather("messages", message);
  EXPECT_EQ(std::set<std::string>(all.begin(), all.end()).size(), 1U);
}

TEST(HostMessages, DifferentCallsAreNamed) {
  HostComm& host = session().host();
  if (host.size() == 1) return;
  std::string message;
  try {
    if (host.rank() == 1) {
      host.barrier("save");
    } else {
      std::int64_t value = 1;
      host.all_reduce_sum("evaluate", std::span(&value, 1));
    }
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kDisagree);
    message = error.what();
  }
  EXPECT_NE(message.find("barrier \"save\""), std::string::npos) << message;
  EXPECT_NE(message.find("all_reduce_sum \"evaluate\""), std::string::npos) << message;
}

// Nothing that a communicator made may have a name in the file system.
TEST(SharedMemory, LeavesNoName) {
  const auto communicator = make_communicator(session().world(), session().host(), c10::Device(c10::kCPU));
  session().host().barrier("made");
  DIR* folder = opendir("/dev/shm");
  ASSERT_NE(folder, nullptr);
  while (const dirent* entry = readdir(folder)) {
    EXPECT_EQ(std::string(entry->d_name).find("dtrain"), std::string::npos) << entry->d_name;
  }
  closedir(folder);
  session().host().barrier("looked");
}

// Last, because it changes the process.
TEST(ZCores, AreSharedFairly) {
  const World& world = session().world();
  const CoreShare share = bind_cores(world, session().host(), BindMode::kFair);
  ASSERT_FALSE(share.cpus.empty());
  cpu_set_t set;
  CPU_ZERO(&set);
  ASSERT_EQ(sched_getaffinity(0, sizeof(set), &set), 0);
  EXPECT_EQ(CPU_COUNT(&set), static_cast<int>(share.cpus.size()));
  for (const int cpu : share.cpus) EXPECT_TRUE(CPU_ISSET(static_cast<std::size_t>(cpu), &set)) << cpu;
  // Together the ranks have all cores of the process that started them, and with enough cores each has its own.
  const auto rows = session().host().all_gather("shares", fmt::format("{}", fmt::join(share.cpus, " ")));
  std::set<int> together;
  std::size_t total = 0;
  for (const std::string& row : rows) {
    for (std::size_t at = 0; at < row.size();) {
      std::size_t used = 0;
      together.insert(std::stoi(row.substr(at), &used));
      at += used + 1;
      ++total;
    }
  }
  ASSERT_EQ(sched_getaffinity(getppid(), sizeof(set), &set), 0);
  EXPECT_EQ(together.size(), static_cast<std::size_t>(CPU_COUNT(&set)));
  EXPECT_EQ(total, std::max(together.size(), rows.size()));
}

}  // namespace
}  // namespace dtrain::test
