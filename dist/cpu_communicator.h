// CpuCommunicator: Communicator for tensors in host memory. A thread of its own runs the collectives in order, so that
// they overlap with the caller's computation.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "dist/communicator.h"
#include "dist/cross_node.h"
#include "dist/shared_channel.h"
#include "dist/world.h"

namespace dtrain {

class CpuCommunicator final : public Communicator {
 public:
  // `host` must outlive the object; the rest as for SharedChannel.
  struct Parts {
    World world;
    ChannelPlan plan;
    std::shared_ptr<std::byte> block;
    std::unique_ptr<CrossNode> cross;
    std::vector<std::pair<int, int>> places;  // (node, local rank) of each rank
    std::string_view backend;
    double deadline_seconds = kDefaultDeadlineSeconds;
  };
  CpuCommunicator(Parts parts, const HostComm& host);
  // Gives up collectives that are still running.
  ~CpuCommunicator() override;

  [[nodiscard]] int rank() const override { return parts_.world.rank; }
  [[nodiscard]] int size() const override { return parts_.world.world_size; }
  [[nodiscard]] std::string_view backend() const override { return parts_.backend; }
  [[nodiscard]] WorkPtr all_reduce_sum(const at::Tensor& tensor, std::string_view name) override;
  [[nodiscard]] WorkPtr broadcast(const at::Tensor& tensor, int root, std::string_view name) override;
  [[nodiscard]] WorkPtr all_gather(const at::Tensor& output, const at::Tensor& input, std::string_view name) override;

 private:
  class Task;
  WorkPtr start(std::string_view operation, std::string_view name, std::int64_t bytes, std::function<void()> action);
  void run();

  Parts parts_;
  FlightRecorder& recorder_;
  std::atomic<bool> stop_{false};
  SharedChannel channel_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::shared_ptr<Task>> queue_;  // guarded by mutex_
  std::exception_ptr broken_;                // guarded by mutex_; what ended the first failed collective
  std::thread thread_;
};

// Throws Error(kInternal) unless the tensor is contiguous, on a CPU, and (for sums) of a type that can be summed.
void check_cpu_tensor(const at::Tensor& tensor, bool for_sum, std::string_view name);

}  // namespace dtrain
