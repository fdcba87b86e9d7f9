#include "dist/make_communicator.h"

#include <algorithm>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "core/log.h"
#include "dist/cpu_communicator.h"
#include "dist/gpu_backend.h"
#include "dist/mpi_host_comm.h"
#include "dist/shared_memory.h"
#include "dist/single_communicator.h"

namespace dtrain {
namespace {

struct Place {
  int node = 0;
  int local = 0;
};

std::vector<std::pair<int, int>> all_places(const World& world, HostComm& host) {
  const Place mine{world.node_rank, world.local_rank};
  const auto rows = host.all_gather("places of ranks", {reinterpret_cast<const char*>(&mine), sizeof(mine)});
  std::vector<std::pair<int, int>> places;
  for (const std::string& row : rows) {
    Place place;
    std::memcpy(&place, row.data(), sizeof(place));
    places.emplace_back(place.node, place.local);
  }
  return places;
}

std::shared_ptr<Communicator> make_cpu_communicator(World world, HostComm& host, const CommunicatorOptions& options) {
  if (options.ranks_per_node > 0) world = regrouped(world, options.ranks_per_node);
  std::shared_ptr<std::byte> block;
  ChannelPlan plan;
  for (bool shared = true;; shared = false) {
    // Without shared memory every rank is a node of its own, and MPI moves everything.
    if (!shared) world = regrouped(world, 1);
    std::int64_t nothing_smaller = -world.local_size;
    host.all_reduce_max("smallest node", std::span(&nothing_smaller, 1));
    plan = plan_channel(world, static_cast<int>(-nothing_smaller), options.chunk_bytes);
    if (!shared || world.num_nodes == world.world_size) {
      block = private_block(plan.block_bytes());
      break;
    }
    const auto memory = share_memory(world, host, plan.block_bytes());
    if (memory != nullptr) {
      block = std::shared_ptr<std::byte>(memory, memory->data());
      break;
    }
    if (world.is_first()) log::warning("ranks of a node cannot share memory; MPI moves all gradients, which is slower");
  }

  CpuCommunicator::Parts parts;
  parts.places = all_places(world, host);
  parts.cross = world.num_nodes > 1 ? make_mpi_cross_node(world, plan.buffers) : nullptr;
  parts.backend = world.num_nodes > 1 ? "mpi" : "shared memory";
  parts.world = world;
  parts.plan = plan;
  parts.block = std::move(block);
  parts.deadline_seconds = options.deadline_seconds;
  return std::make_shared<CpuCommunicator>(std::move(parts), host);
}

}  // namespace

World regrouped(const World& world, int ranks_per_node) {
  DTRAIN_CHECK(ranks_per_node > 0, "{} ranks per node", ranks_per_node);
  World result = world;
  result.node_rank = world.rank / ranks_per_node;
  result.local_rank = world.rank % ranks_per_node;
  result.num_nodes = (world.world_size + ranks_per_node - 1) / ranks_per_node;
  result.local_size = std::min(ranks_per_node, world.world_size - result.node_rank * ranks_per_node);
  return result;
}

std::shared_ptr<Communicator> make_communicator(const World& world, HostComm& host, c10::Device device,
                                                const CommunicatorOptions& options) {
  if (world.world_size == 1) return std::make_shared<SingleCommunicator>();
  if (device.is_cuda()) return load_gpu_backend().make_communicator(world, host, options);
  DTRAIN_CHECK(device.is_cpu(), "no communicator for device {}", device.str());
  DTRAIN_CHECK(dynamic_cast<MpiHostComm*>(&host) != nullptr, "processes as ranks need MPI");
  return make_cpu_communicator(world, host, options);
}

}  // namespace dtrain
