// NcclCommunicator: Communicator for CUDA tensors over NCCL, on a stream of its own.
//
// Collectives are ordered after what the caller's current stream holds when they are started; Work::wait() makes the
// current stream wait, not the host. The NCCL communicator is non-blocking: initialisation and every call end by the
// deadline. A watching thread polls NCCL's asynchronous errors, reported failures of other ranks and the deadline of
// what is under way; it aborts NCCL then, which ends the kernels, and every later call throws the reason. An abort
// that does not return within five seconds ends the process. In the flight recorder a collective ends when the watching
// thread finds its event passed, up to a tenth of a second late.
#pragma once

#include <atomic>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include <c10/cuda/CUDAStream.h>
#include <nccl.h>

#include "dist/communicator.h"
#include "dist/host_comm.h"
#include "dist/make_communicator.h"
#include "dist/world.h"

namespace dtrain {

class NcclCommunicator final : public Communicator {
 public:
  // Collective; on the current CUDA device. `host` must outlive the object.
  NcclCommunicator(const World& world, HostComm& host, const CommunicatorOptions& options);
  ~NcclCommunicator() override;  // gives up what is still running; local

  [[nodiscard]] int rank() const override { return world_.rank; }
  [[nodiscard]] int size() const override { return world_.world_size; }
  [[nodiscard]] std::string_view backend() const override { return "nccl"; }
  [[nodiscard]] WorkPtr all_reduce_sum(const at::Tensor& tensor, std::string_view name) override;
  [[nodiscard]] WorkPtr broadcast(const at::Tensor& tensor, int root, std::string_view name) override;
  [[nodiscard]] WorkPtr all_gather(const at::Tensor& output, const at::Tensor& input, std::string_view name) override;

 private:
  class StreamWork;
  template <class Call>
  WorkPtr start(std::string_view operation, std::string_view name, std::int64_t bytes, const at::Tensor& first,
                const at::Tensor& second, const Call& call);
  void check_tensor(const at::Tensor& tensor, std::string_view name) const;
  // Waits until NCCL has taken the call that returned `result`.
  void settle(ncclResult_t result, const std::string& what);
  void throw_if_broken();
  void give_up(const std::exception_ptr& reason);
  // Throws when NCCL has failed; else takes finished collectives away and returns the one under way, or null.
  std::shared_ptr<StreamWork> look();
  void watch();

  World world_;
  HostComm& host_;
  double deadline_seconds_;
  c10::DeviceIndex device_;
  c10::cuda::CUDAStream stream_;
  std::mutex mutex_;                                   // NCCL takes one thread at a time
  ncclComm_t comm_ = nullptr;                          // guarded by mutex_; null once aborted
  std::exception_ptr broken_;                          // guarded by mutex_
  std::deque<std::shared_ptr<StreamWork>> under_way_;  // guarded by mutex_
  std::atomic<bool> stop_{false};
  std::thread watcher_;
};

}  // namespace dtrain
