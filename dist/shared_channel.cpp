#include "dist/shared_channel.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstring>
#include <ctime>

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "dist/reduce_kernels.h"

namespace dtrain {
namespace {

constexpr std::size_t kLine = 64;
// Small enough for the third-level cache with all areas in flight, large enough to meet rarely.
constexpr std::size_t kNodeChunkBytes = std::size_t{512} << 10U;
// Between nodes every owner sends pieces of this size.
constexpr std::size_t kNetworkPieceBytes = std::size_t{1} << 20U;
constexpr std::size_t kBlockBudgetBytes = std::size_t{128} << 20U;
constexpr std::size_t kSmallestChunkBytes = std::size_t{16} << 10U;
// The steps of the pipeline: how many chunks later the slice is finished and copied out.
constexpr std::int64_t kReduceLag = 0;
constexpr std::int64_t kNetworkLag = 2;
// Tensors from this size on are written past the caches.
constexpr std::int64_t kStreamingBytes = std::int64_t{8} << 20U;
constexpr int kSpinRounds = 300;
constexpr std::int64_t kSleepNanoseconds = 20'000'000;

std::size_t round_up(std::size_t value, std::size_t multiple) { return (value + multiple - 1) / multiple * multiple; }

// Between processes: without FUTEX_PRIVATE_FLAG. Wakes up for a change, a signal or after 20 ms; the caller looks
// again.
void futex_wait(const std::atomic<std::uint32_t>& word, std::uint32_t seen) {
  const timespec timeout{0, kSleepNanoseconds};
  ::syscall(SYS_futex, &word, FUTEX_WAIT, seen, &timeout, nullptr, 0);
}

void futex_wake_all(const std::atomic<std::uint32_t>& word) {
  ::syscall(SYS_futex, &word, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

// Counters wrap around after 2^32 chunks.
bool reached(std::uint32_t value, std::uint32_t target) { return static_cast<std::int32_t>(value - target) >= 0; }

struct alignas(kLine) Counter {
  std::atomic<std::uint32_t> value{0};
  std::atomic<std::uint32_t> sleepers{0};
};

enum class OperationKind : std::uint8_t { kAllReduce = 1, kBroadcast = 2 };

}  // namespace

struct SharedChannel::Counters {
  std::array<Counter, 3> stages;  // by Stage
};

struct alignas(kLine) SharedChannel::ChunkHeader {
  std::int64_t bytes = 0;  // of the whole operation
  std::int32_t root = 0;
  OperationKind kind = OperationKind::kAllReduce;
  std::int8_t type = 0;
  std::uint8_t name_length = 0;
  std::array<char, 41> name = {};
  bool operator==(const ChunkHeader&) const = default;
};

struct SharedChannel::Operation {
  ChunkHeader header;
  std::byte* data = nullptr;
  c10::ScalarType type = c10::ScalarType::Byte;
  std::size_t element = 1;
  std::int64_t count = 0;        // elements
  std::int64_t chunk_count = 0;  // elements of a full chunk
  std::int64_t chunks = 0;
  std::uint32_t first = 0;  // sequence number of chunk 0
  int root_local = 0;
  int root_node = 0;

  [[nodiscard]] bool streaming() const { return header.bytes >= kStreamingBytes; }
  [[nodiscard]] bool is_sum() const { return header.kind == OperationKind::kAllReduce; }
  [[nodiscard]] std::uint32_t sequence(std::int64_t chunk) const { return first + static_cast<std::uint32_t>(chunk); }
  [[nodiscard]] std::int64_t chunk_begin(std::int64_t chunk) const { return chunk * chunk_count; }
  [[nodiscard]] std::int64_t chunk_size(std::int64_t chunk) const {
    return std::min(chunk_count, count - chunk_begin(chunk));
  }
  [[nodiscard]] std::byte* at(std::int64_t index) const { return data + static_cast<std::size_t>(index) * element; }
  [[nodiscard]] std::size_t bytes(std::int64_t elements) const { return static_cast<std::size_t>(elements) * element; }
  [[nodiscard]] std::string describe() const {
    return fmt::format("{} \"{}\"", is_sum() ? "all_reduce" : "broadcast",
                       std::string_view(header.name.data(), header.name_length));
  }
};

// Where things lie in the block: counters by rank, headers and areas by rank and buffer, result areas by buffer.
class SharedChannel::Block {
 public:
  Block(const ChannelPlan& plan, std::shared_ptr<std::byte> memory) : plan_(plan), memory_(std::move(memory)) {}

  static std::size_t bytes(const ChannelPlan& plan) {
    const auto ranks = static_cast<std::size_t>(plan.local_size);
    return ranks * sizeof(Counters) + ranks * plan.buffers * sizeof(ChunkHeader) +
           (ranks + 1) * plan.buffers * plan.chunk_bytes;
  }
  [[nodiscard]] Counter& counter(int rank, Stage stage) const {
    auto* counters = reinterpret_cast<Counters*>(memory_.get());
    return counters[rank].stages[static_cast<std::size_t>(stage)];
  }
  [[nodiscard]] ChunkHeader& header(int rank, std::size_t buffer) const {
    auto* headers = reinterpret_cast<ChunkHeader*>(memory_.get() + ranks() * sizeof(Counters));
    return headers[index(rank, buffer)];
  }
  // What `rank` offers the others.
  [[nodiscard]] std::byte* area(int rank, std::size_t buffer) const {
    return areas() + index(rank, buffer) * plan_.chunk_bytes;
  }
  [[nodiscard]] std::byte* result(std::size_t buffer) const {
    return areas() + index(plan_.local_size, buffer) * plan_.chunk_bytes;
  }

 private:
  [[nodiscard]] std::size_t ranks() const { return static_cast<std::size_t>(plan_.local_size); }
  [[nodiscard]] std::size_t index(int rank, std::size_t buffer) const {
    return static_cast<std::size_t>(rank) * plan_.buffers + buffer;
  }
  [[nodiscard]] std::byte* areas() const {
    return memory_.get() + ranks() * sizeof(Counters) + ranks() * plan_.buffers * sizeof(ChunkHeader);
  }

  ChannelPlan plan_;
  std::shared_ptr<std::byte> memory_;
};

std::size_t ChannelPlan::block_bytes() const {
  const auto ranks = static_cast<std::size_t>(local_size);
  // Counters (three lines) and a header line per buffer, then the areas; see Block.
  return ranks * 3 * kLine + ranks * buffers * kLine + (ranks + 1) * buffers * chunk_bytes;
}

ChannelPlan plan_channel(const World& world, int smallest_node, std::int64_t chunk_bytes) {
  ChannelPlan plan;
  plan.local_size = world.local_size;
  const bool network = world.num_nodes > 1;
  plan.owners = network ? smallest_node : world.local_size;
  plan.buffers = network ? 4 : 3;
  const auto owners = static_cast<std::size_t>(plan.owners);
  std::size_t bytes = static_cast<std::size_t>(chunk_bytes);
  if (bytes == 0) {
    const std::size_t areas = (static_cast<std::size_t>(world.local_size) + 1) * plan.buffers;
    bytes = network ? owners * kNetworkPieceBytes : kNodeChunkBytes;
    bytes = std::clamp(bytes, kSmallestChunkBytes, std::max(kSmallestChunkBytes, kBlockBudgetBytes / areas));
  }
  // MPI counts are ints.
  bytes = std::min(bytes, std::size_t{1} << 30U);
  plan.chunk_bytes = round_up(bytes, kLine * owners);
  return plan;
}

SharedChannel::SharedChannel(const World& world, const ChannelPlan& plan, std::shared_ptr<std::byte> block,
                             CrossNode* cross, const HostComm& host, const std::atomic<bool>& stop,
                             double deadline_seconds)
    : world_(world),
      plan_(plan),
      block_(std::make_unique<Block>(plan, std::move(block))),
      cross_(cross),
      host_(host),
      stop_(stop),
      deadline_seconds_(deadline_seconds) {
  static_assert(sizeof(Counters) == 3 * kLine && sizeof(ChunkHeader) == kLine);
  DTRAIN_CHECK((cross != nullptr) == (world.num_nodes > 1), "a job of {} nodes", world.num_nodes);
  DTRAIN_CHECK(Block::bytes(plan) == plan.block_bytes(), "layout of the shared block");
  partial_sums_.resize(plan.buffers);
}

SharedChannel::~SharedChannel() = default;

void SharedChannel::all_reduce_sum(std::byte* data, c10::ScalarType type, std::int64_t count, std::string_view name) {
  Operation op;
  op.header.kind = OperationKind::kAllReduce;
  op.header.type = static_cast<std::int8_t>(type);
  op.element = c10::elementSize(type);
  op.header.bytes = count * static_cast<std::int64_t>(op.element);
  op.header.name_length = static_cast<std::uint8_t>(std::min(name.size(), op.header.name.size()));
  std::memcpy(op.header.name.data(), name.data(), op.header.name_length);
  op.data = data;
  op.type = type;
  op.count = count;
  run(op);
}

void SharedChannel::broadcast(std::byte* data, std::size_t bytes, int root_local, int root_node,
                              std::string_view name) {
  Operation op;
  op.header.kind = OperationKind::kBroadcast;
  op.header.bytes = static_cast<std::int64_t>(bytes);
  op.header.root = root_node * 65536 + root_local;
  op.header.name_length = static_cast<std::uint8_t>(std::min(name.size(), op.header.name.size()));
  std::memcpy(op.header.name.data(), name.data(), op.header.name_length);
  op.data = data;
  op.count = static_cast<std::int64_t>(bytes);
  op.root_local = root_local;
  op.root_node = root_node;
  run(op);
}

void SharedChannel::run(const Operation& given) {
  Operation op = given;
  op.chunk_count = static_cast<std::int64_t>(plan_.chunk_bytes / op.element);
  // An empty tensor is one empty chunk, so that its header is compared too.
  op.chunks = std::max<std::int64_t>(1, (op.count + op.chunk_count - 1) / op.chunk_count);
  op.first = sequence_;
  const std::int64_t finish_lag = cross_ != nullptr ? kNetworkLag : kReduceLag;
  const std::int64_t copy_lag = finish_lag + 1;
  for (std::int64_t i = 0; i < op.chunks + copy_lag; ++i) {
    if (i < op.chunks) {
      post(op, i);
      reduce(op, i);
    }
    if (i >= finish_lag && i - finish_lag < op.chunks) finish_reduce(op, i - finish_lag);
    if (i >= copy_lag) copy_out(op, i - copy_lag);
  }
  sequence_ += static_cast<std::uint32_t>(op.chunks);
}

namespace {

// Slice `owner` of a chunk of `size` elements: whole cache lines except the last.
struct Slice {
  std::int64_t begin = 0;
  std::int64_t count = 0;
};

Slice slice_of(std::int64_t size, int owner, int owners, std::size_t element) {
  const auto line = static_cast<std::int64_t>(kLine / element);
  const std::int64_t lines = (size + line - 1) / line;
  const std::int64_t per_owner = (lines + owners - 1) / owners * line;
  const std::int64_t begin = std::min(size, per_owner * owner);
  return {begin, std::min(size, begin + per_owner) - begin};
}

}  // namespace

void SharedChannel::post(const Operation& op, std::int64_t chunk) {
  const std::uint32_t sequence = op.sequence(chunk);
  const std::size_t buffer = sequence % plan_.buffers;
  // The areas of this buffer are free once everyone has copied the chunk that used them before.
  const std::uint32_t previous = sequence + 1 - static_cast<std::uint32_t>(plan_.buffers);
  for (int r = 0; r < plan_.local_size; ++r) {
    if (r != world_.local_rank) wait_for(r, Stage::kCopied, previous, op);
  }
  block_->header(world_.local_rank, buffer) = op.header;
  const std::int64_t begin = op.chunk_begin(chunk);
  const std::int64_t size = op.chunk_size(chunk);
  std::byte* area = block_->area(world_.local_rank, buffer);
  if (op.is_sum()) {
    // The own slice is read from the tensor itself.
    const Slice own =
        world_.local_rank < plan_.owners ? slice_of(size, world_.local_rank, plan_.owners, op.element) : Slice{size, 0};
    const std::int64_t rest = own.begin + own.count;
    copy_bytes(area, op.at(begin), op.bytes(own.begin), /*streaming=*/false);
    copy_bytes(area + op.bytes(rest), op.at(begin + rest), op.bytes(size - rest), /*streaming=*/false);
  } else if (world_.node_rank == op.root_node && world_.local_rank == op.root_local) {
    copy_bytes(block_->result(buffer), op.at(begin), op.bytes(size), /*streaming=*/false);
  }
  advance(Stage::kPosted, sequence + 1);
}

void SharedChannel::reduce(const Operation& op, std::int64_t chunk) {
  const std::uint32_t sequence = op.sequence(chunk);
  const std::size_t buffer = sequence % plan_.buffers;
  const int rank = world_.local_rank;
  for (int r = 0; r < plan_.local_size; ++r) {
    if (r != rank) wait_for(r, Stage::kPosted, sequence + 1, op);
  }
  check_headers(op.header, buffer);
  const std::int64_t begin = op.chunk_begin(chunk);
  const std::int64_t size = op.chunk_size(chunk);
  if (op.is_sum()) {
    if (rank >= plan_.owners) return;
    const Slice own = slice_of(size, rank, plan_.owners, op.element);
    std::vector<const std::byte*> inputs(static_cast<std::size_t>(plan_.local_size));
    for (int r = 0; r < plan_.local_size; ++r) {
      inputs[static_cast<std::size_t>(r)] =
          r == rank ? op.at(begin + own.begin) : block_->area(r, buffer) + op.bytes(own.begin);
    }
    if (cross_ == nullptr) {
      std::byte* output = block_->result(buffer) + op.bytes(own.begin);
      sum_inputs(op.type, output, inputs, own.count);
      copy_bytes(op.at(begin + own.begin), output, op.bytes(own.count), op.streaming());
    } else if (own.count > 0) {
      const c10::ScalarType wide = accumulator_type(op.type);
      auto& sums = partial_sums_[buffer];
      sums.resize(static_cast<std::size_t>(own.count) * c10::elementSize(wide));
      sum_inputs_unrounded(op.type, sums.data(), inputs, own.count);
      cross_->start_sum(buffer, sums.data(), wide, own.count);
    }
  } else if (cross_ != nullptr && rank == 0 && size > 0) {
    cross_->start_broadcast(buffer, block_->result(buffer), op.bytes(size), op.root_node);
  }
}

void SharedChannel::finish_reduce(const Operation& op, std::int64_t chunk) {
  const std::uint32_t sequence = op.sequence(chunk);
  const std::size_t buffer = sequence % plan_.buffers;
  const int rank = world_.local_rank;
  if (rank >= plan_.owners) return;
  if (cross_ != nullptr) {
    Waiting waiting(host_, deadline_seconds_);
    while (!cross_->test(buffer)) {
      if (stop_) throw PeerFailed(ExitCode::kInternal);
      if (waiting.pause()) continue;
      throw Error(
          ExitCode::kStalled,
          fmt::format("rank {} waited {} s for the other nodes in {}", world_.rank, deadline_seconds_, op.describe()),
          "look at the last log lines of the other nodes; a slow step needs a larger ddp_timeout");
    }
    if (op.is_sum()) {
      const std::int64_t begin = op.chunk_begin(chunk);
      const Slice own = slice_of(op.chunk_size(chunk), rank, plan_.owners, op.element);
      std::byte* output = block_->result(buffer) + op.bytes(own.begin);
      if (own.count > 0) round_sums(op.type, output, partial_sums_[buffer].data(), own.count);
      copy_bytes(op.at(begin + own.begin), output, op.bytes(own.count), op.streaming());
    }
  }
  advance(Stage::kReduced, sequence + 1);
}

void SharedChannel::copy_out(const Operation& op, std::int64_t chunk) {
  const std::uint32_t sequence = op.sequence(chunk);
  const std::size_t buffer = sequence % plan_.buffers;
  const std::int64_t begin = op.chunk_begin(chunk);
  const std::int64_t size = op.chunk_size(chunk);
  const std::byte* result = block_->result(buffer);
  if (op.is_sum()) {
    for (int i = 1; i <= plan_.owners; ++i) {
      // Each rank starts with the slice after its own, so that they do not queue for the same one.
      const int owner = (world_.local_rank + i) % plan_.owners;
      if (owner == world_.local_rank) continue;
      wait_for(owner, Stage::kReduced, sequence + 1, op);
      const Slice slice = slice_of(size, owner, plan_.owners, op.element);
      copy_bytes(op.at(begin + slice.begin), result + op.bytes(slice.begin), op.bytes(slice.count), op.streaming());
    }
  } else {
    // Local rank 0 has the chunk when its exchange between the nodes is done; on the root's node all have posted it.
    if (world_.local_rank != 0) wait_for(0, Stage::kReduced, sequence + 1, op);
    if (world_.node_rank != op.root_node || world_.local_rank != op.root_local) {
      copy_bytes(op.at(begin), result, op.bytes(size), op.streaming());
    }
  }
  advance(Stage::kCopied, sequence + 1);
}

void SharedChannel::check_headers(const ChunkHeader& mine, std::size_t buffer) const {
  const auto describe = [](const ChunkHeader& header) {
    return fmt::format(
        "{} \"{}\" of {} bytes{}", header.kind == OperationKind::kAllReduce ? "all_reduce" : "broadcast",
        std::string_view(header.name.data(), std::min<std::size_t>(header.name_length, header.name.size())),
        header.bytes,
        header.kind == OperationKind::kAllReduce
            ? fmt::format(" ({})", c10::toString(static_cast<c10::ScalarType>(header.type)))
            : fmt::format(" from rank {} of node {}", header.root % 65536, header.root / 65536));
  };
  const int first_rank = world_.rank - world_.local_rank;
  for (int r = 0; r < plan_.local_size; ++r) {
    const ChunkHeader& other = block_->header(r, buffer);
    if (other == mine) continue;
    // Told from the lower rank's side, so that both ranks print the same line.
    const bool lower = r < world_.local_rank;
    const ChunkHeader& a = lower ? other : mine;
    const ChunkHeader& b = lower ? mine : other;
    throw disagree_error(fmt::format("ranks run different collectives: rank {} {}, rank {} {}",
                                     first_rank + std::min(r, world_.local_rank), describe(a),
                                     first_rank + std::max(r, world_.local_rank), describe(b)),
                         "all ranks must have the same parameters, in the same order and of the same type");
  }
}

void SharedChannel::wait_for(int local_rank, Stage stage, std::uint32_t target, const Operation& op) {
  Counter& counter = block_->counter(local_rank, stage);
  if (reached(counter.value.load(std::memory_order_acquire), target)) return;
  for (int i = 0; i < kSpinRounds; ++i) {
    relax_processor();
    if (reached(counter.value.load(std::memory_order_acquire), target)) return;
  }
  Waiting waiting(host_, deadline_seconds_);
  counter.sleepers.fetch_add(1);
  for (bool in_time = true;;) {
    const std::uint32_t value = counter.value.load();
    if (reached(value, target)) break;
    if (stop_ || !in_time) {
      counter.sleepers.fetch_sub(1);
      if (stop_) throw PeerFailed(ExitCode::kInternal);
      throw Error(ExitCode::kStalled,
                  fmt::format("rank {} waited {} s for rank {} in {}", world_.rank, deadline_seconds_,
                              world_.rank - world_.local_rank + local_rank, op.describe()),
                  "look at that rank's last log line; a slow step needs a larger ddp_timeout");
    }
    if (cross_ != nullptr && !cross_->idle()) {
      // MPI advances only while someone calls it, and the other nodes may need this rank's part.
      static_cast<void>(cross_->test(0));
      in_time = waiting.pause();
    } else {
      futex_wait(counter.value, value);
      in_time = waiting.check();
    }
  }
  counter.sleepers.fetch_sub(1);
}

void SharedChannel::advance(Stage stage, std::uint32_t value) {
  Counter& counter = block_->counter(world_.local_rank, stage);
  // Sequentially consistent with the sleeper's order (announce, then look again): one of the two sees the other.
  counter.value.store(value);
  if (counter.sleepers.load() != 0) futex_wake_all(counter.value);
}

}  // namespace dtrain
