// SharedChannel: collectives on host memory between the ranks of a node through one block of shared memory, and through
// CrossNode between nodes. The algorithm only; threads, tensors and handles are CpuCommunicator's business.
//
// A tensor moves in chunks. Each chunk passes three counters per rank:
//   posted   the rank has copied what others need into its own area
//   reduced  the rank has summed its slice over all ranks (and nodes) into the result area
//   copied   the rank has copied the others' slices out: the chunk's areas may be used again
// A few chunk areas are in flight, so that a rank rarely waits for the slowest one. Every sum is taken by one rank, in
// rank order, and copied by the others: all ranks hold the same bits, and every run the same. Per rank and byte of
// tensor this moves (2 + 1/local_size) bytes through the cache-sized areas instead of going through the network stack.
// Ranks that post different operations get Error(kDisagree) instead of a wrong sum.
// One thread per rank at a time. Every function is collective.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <c10/core/ScalarType.h>

#include "dist/cross_node.h"
#include "dist/host_comm.h"
#include "dist/waiting.h"
#include "dist/world.h"

namespace dtrain {

// How the block is cut; a pure function of the arguments of plan_channel().
struct ChannelPlan {
  int local_size = 1;
  int owners = 1;               // ranks of each node that sum a slice: those whose local rank exists on every node
  std::size_t buffers = 3;      // chunk areas in flight
  std::size_t chunk_bytes = 0;  // a multiple of 64 * owners
  [[nodiscard]] std::size_t block_bytes() const;
};

// `smallest_node` is the number of ranks of the smallest node; `chunk_bytes` 0 chooses.
[[nodiscard]] ChannelPlan plan_channel(const World& world, int smallest_node, std::int64_t chunk_bytes);

class SharedChannel {
 public:
  // `block` is zeroed, plan.block_bytes() long, the same memory on all ranks of the node; `cross` may be null with one
  // node. `host` serves the failure flag only. `stop` ends all waits with an exception when it becomes true.
  SharedChannel(const World& world, const ChannelPlan& plan, std::shared_ptr<std::byte> block, CrossNode* cross,
                const HostComm& host, const std::atomic<bool>& stop, double deadline_seconds);
  ~SharedChannel();

  void all_reduce_sum(std::byte* data, c10::ScalarType type, std::int64_t count, std::string_view name);
  // `root` is a rank of the job; `root_local` and `root_node` are its place.
  void broadcast(std::byte* data, std::size_t bytes, int root_local, int root_node, std::string_view name);

 private:
  struct Counters;
  struct ChunkHeader;
  struct Operation;
  class Block;

  void run(const Operation& operation);
  void post(const Operation& operation, std::int64_t chunk);
  void reduce(const Operation& operation, std::int64_t chunk);
  void finish_reduce(const Operation& operation, std::int64_t chunk);
  void copy_out(const Operation& operation, std::int64_t chunk);
  void check_headers(const ChunkHeader& mine, std::size_t buffer) const;
  enum class Stage { kPosted, kReduced, kCopied };
  void wait_for(int local_rank, Stage stage, std::uint32_t target, const Operation& operation);
  void advance(Stage stage, std::uint32_t value);

  World world_;
  ChannelPlan plan_;
  std::unique_ptr<Block> block_;
  CrossNode* cross_;
  const HostComm& host_;
  const std::atomic<bool>& stop_;
  double deadline_seconds_;
  std::uint32_t sequence_ = 0;                        // chunks of all operations so far
  std::vector<std::vector<std::byte>> partial_sums_;  // per buffer, this rank's slice between the nodes
};

}  // namespace dtrain
