#include "dist/thread_ranks.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "dist/cpu_communicator.h"
#include "dist/failure_flag.h"
#include "dist/framed_host_comm.h"
#include "dist/shared_memory.h"
#include "dist/single_communicator.h"

namespace dtrain {
namespace {

// What the ranks of one job share: a barrier at which each shows the others a span of its memory.
struct Blackboard {
  explicit Blackboard(int ranks) : spans(static_cast<std::size_t>(ranks)) {}

  std::mutex mutex;
  std::condition_variable changed;
  std::vector<std::span<const std::byte>> spans;  // guarded by mutex until all have arrived
  std::size_t arrived = 0;
  std::uint64_t round = 0;
  FailureFlag flag;
};

class ThreadHostComm final : public FramedHostComm {
 public:
  ThreadHostComm(Blackboard& board, int rank) : board_(board), rank_(rank) {}

  [[nodiscard]] int rank() const override { return rank_; }
  [[nodiscard]] int size() const override { return static_cast<int>(board_.spans.size()); }
  bool report_failure(ExitCode code) noexcept override { return board_.flag.report(rank_, code); }
  [[nodiscard]] ExitCode reported_failure() const noexcept override { return board_.flag.code(); }

 protected:
  void exchange(const std::string& call, std::span<const std::byte> mine, std::span<const std::size_t> /*sizes*/,
                std::byte* all) override {
    show(mine);
    meet(call);
    for (const auto& span : board_.spans) {
      if (!span.empty()) std::memcpy(all, span.data(), span.size());
      all += span.size();
    }
    meet(call);  // nobody's memory may go before all have read it
  }

  void send_from(const std::string& call, int root, std::span<std::byte> data) override {
    show(data);
    meet(call);
    if (rank_ != root) std::memcpy(data.data(), board_.spans[static_cast<std::size_t>(root)].data(), data.size());
    meet(call);
  }

 private:
  // Before the meeting after which the others read it; not again before the one after which they have read it.
  void show(std::span<const std::byte> mine) {
    const std::lock_guard lock(board_.mutex);
    board_.spans[static_cast<std::size_t>(rank_)] = mine;
  }

  void meet(const std::string& call) {
    std::unique_lock lock(board_.mutex);
    if (++board_.arrived == board_.spans.size()) {
      board_.arrived = 0;
      ++board_.round;
      board_.changed.notify_all();
      return;
    }
    const std::uint64_t round = board_.round;
    const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(deadline_seconds());
    while (board_.round == round) {
      if (reported_failure() != ExitCode::kDone) throw PeerFailed(reported_failure());
      if (std::chrono::steady_clock::now() > end) {
        throw Error(ExitCode::kStalled,
                    fmt::format("rank {} waited {} s in {} and not all ranks came", rank_, deadline_seconds(), call));
      }
      board_.changed.wait_for(lock, std::chrono::milliseconds(20));
    }
  }

  Blackboard& board_;
  int rank_;
};

}  // namespace

void run_thread_ranks(int world_size, const std::function<void(ThreadRank&)>& body,
                      const CommunicatorOptions& options) {
  DTRAIN_CHECK(world_size > 0, "a job of {} ranks", world_size);
  Blackboard board(world_size);
  World first;
  first.world_size = first.local_size = world_size;
  const ChannelPlan plan = plan_channel(first, world_size, options.chunk_bytes);
  const auto block = private_block(plan.block_bytes());

  std::mutex mutex;
  std::exception_ptr reason;  // guarded by mutex
  bool reason_is_peer = true;
  const auto run_rank = [&](int rank) {
    World world = first;
    world.rank = world.local_rank = rank;
    ThreadHostComm host(board, rank);
    host.set_deadline(options.deadline_seconds);
    const auto fail = [&](ExitCode code, bool peer) {
      host.report_failure(code);
      const std::lock_guard lock(mutex);
      if (!reason || (reason_is_peer && !peer)) {
        reason = std::current_exception();
        reason_is_peer = peer;
      }
    };
    try {
      ThreadRank context{world, host, std::make_shared<SingleCommunicator>()};
      if (world_size > 1) {
        CpuCommunicator::Parts parts;
        parts.world = world;
        parts.plan = plan;
        parts.block = block;
        for (int r = 0; r < world_size; ++r) parts.places.emplace_back(0, r);
        parts.backend = "threads";
        parts.deadline_seconds = options.deadline_seconds;
        context.communicator = std::make_shared<CpuCommunicator>(std::move(parts), host);
      }
      body(context);
    } catch (const PeerFailed& error) {
      fail(error.code(), true);
    } catch (const Error& error) {
      fail(error.code(), false);
    } catch (const std::exception&) {
      fail(ExitCode::kInternal, false);
    }
  };
  std::vector<std::thread> threads;
  for (int rank = 0; rank < world_size; ++rank) threads.emplace_back(run_rank, rank);
  for (std::thread& thread : threads) thread.join();
  if (reason) std::rethrow_exception(reason);
}

}  // namespace dtrain
