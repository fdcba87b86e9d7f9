#include "dist/nccl_communicator.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>

#include <ATen/cuda/CUDAEvent.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>

#include "dist/abort.h"
#include "dist/awake_time.h"
#include "dist/waiting.h"

namespace dtrain {
namespace {

constexpr std::chrono::milliseconds kWatchPeriod{100};
constexpr double kLongestGapSeconds = 0.5;  // between two looks of a process that runs
constexpr double kAbortSeconds = 5;

Error nccl_error(ncclResult_t result, const std::string& what, int rank) {
  return {ExitCode::kInternal, fmt::format("NCCL failed in {} on rank {}: {}", what, rank, ncclGetErrorString(result)),
          "set NCCL_DEBUG=WARN to see NCCL's own reason; check the GPUs with nvidia-smi and the network between nodes"};
}

ncclDataType_t nccl_type(c10::ScalarType type) {
  switch (type) {
    case c10::ScalarType::Float:
      return ncclFloat32;
    case c10::ScalarType::Double:
      return ncclFloat64;
    case c10::ScalarType::BFloat16:
      return ncclBfloat16;
    case c10::ScalarType::Half:
      return ncclFloat16;
    case c10::ScalarType::Int:
      return ncclInt32;
    case c10::ScalarType::Long:
      return ncclInt64;
    default:
      DTRAIN_CHECK(false, "cannot sum tensors of type {}", c10::toString(type));
  }
  return ncclFloat32;
}

}  // namespace

class NcclCommunicator::StreamWork final : public Work {
 public:
  StreamWork(NcclCommunicator& owner, std::string name, std::uint64_t sequence)
      : owner_(owner), name_(std::move(name)), sequence_(sequence), start_(cudaEventDefault), end_(cudaEventDefault) {}

  void record_start(const c10::cuda::CUDAStream& stream) { start_.record(stream); }
  void record_end(const c10::cuda::CUDAStream& stream) { end_.record(stream); }
  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] std::uint64_t sequence() const { return sequence_; }

  void wait() override {
    owner_.throw_if_broken();
    end_.block(c10::cuda::getCurrentCUDAStream(owner_.device_));
  }
  bool done() override { return end_.query(); }
  double elapsed() override { return end_.query() ? static_cast<double>(start_.elapsed_time(end_)) * 1e-3 : 0.0; }

 private:
  NcclCommunicator& owner_;
  std::string name_;
  std::uint64_t sequence_;
  at::cuda::CUDAEvent start_;
  at::cuda::CUDAEvent end_;
};

NcclCommunicator::NcclCommunicator(const World& world, HostComm& host, const CommunicatorOptions& options)
    : world_(world),
      host_(host),
      deadline_seconds_(options.deadline_seconds),
      device_(c10::cuda::current_device()),
      stream_(c10::cuda::getStreamFromPool(true, device_)) {
  std::string id_bytes;
  if (world.is_first()) {
    ncclUniqueId id;
    const ncclResult_t result = ncclGetUniqueId(&id);
    if (result != ncclSuccess) throw nccl_error(result, "ncclGetUniqueId", world.rank);
    id_bytes.assign(id.internal, sizeof(id.internal));
  }
  host.broadcast("NCCL id", id_bytes, 0);
  ncclUniqueId id;
  DTRAIN_CHECK(id_bytes.size() == sizeof(id.internal), "NCCL id of {} bytes", id_bytes.size());
  std::memcpy(id.internal, id_bytes.data(), id_bytes.size());
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  const ncclResult_t result = ncclCommInitRankConfig(&comm_, world.world_size, id, world.rank, &config);
  try {
    settle(result, "initialisation");
  } catch (const Error&) {
    if (comm_ != nullptr) static_cast<void>(finishes_within(kAbortSeconds, [comm = comm_] { ncclCommAbort(comm); }));
    throw;
  }
  watcher_ = std::thread([this] { watch(); });
}

NcclCommunicator::~NcclCommunicator() {
  stop_ = true;
  watcher_.join();
  // Abort, because ncclCommDestroy may wait for ranks that are gone. It is local, and harmless when nothing is under
  // way.
  if (comm_ != nullptr) static_cast<void>(finishes_within(kAbortSeconds, [comm = comm_] { ncclCommAbort(comm); }));
}

void NcclCommunicator::settle(ncclResult_t result, const std::string& what) {
  Waiting waiting(host_, deadline_seconds_);
  while (result == ncclInProgress || result == ncclSuccess) {
    {
      const std::lock_guard lock(mutex_);
      if (broken_) std::rethrow_exception(broken_);
      const ncclResult_t queried = ncclCommGetAsyncError(comm_, &result);
      if (queried != ncclSuccess) result = queried;
    }
    if (result == ncclSuccess) return;
    if (!waiting.pause()) {
      throw Error(
          ExitCode::kStalled,
          fmt::format("rank {} waited {} s for the other ranks in NCCL {}", world_.rank, deadline_seconds_, what),
          "check that all nodes reach each other (NCCL_SOCKET_IFNAME, NCCL_DEBUG=INFO)");
    }
  }
  throw nccl_error(result, what, world_.rank);
}

void NcclCommunicator::throw_if_broken() {
  const std::lock_guard lock(mutex_);
  if (broken_) std::rethrow_exception(broken_);
}

void NcclCommunicator::give_up(const std::exception_ptr& reason) {
  ncclComm_t comm = nullptr;
  {
    const std::lock_guard lock(mutex_);
    broken_ = reason;
    under_way_.clear();
    comm = std::exchange(comm_, nullptr);
  }
  // Without the lock: the main thread must learn the reason even when NCCL does not come back.
  if (comm == nullptr) return;
  abort_or_end(
      kAbortSeconds, [comm] { ncclCommAbort(comm); }, reason, world_, host_.recorder().step());
}

std::shared_ptr<NcclCommunicator::StreamWork> NcclCommunicator::look() {
  const std::lock_guard lock(mutex_);
  ncclResult_t state = ncclSuccess;
  ncclCommGetAsyncError(comm_, &state);
  if (state != ncclSuccess && state != ncclInProgress) throw nccl_error(state, "a collective", world_.rank);
  while (!under_way_.empty() && under_way_.front()->done()) {
    host_.recorder().ended(under_way_.front()->sequence());
    under_way_.pop_front();
  }
  return under_way_.empty() ? nullptr : under_way_.front();
}

void NcclCommunicator::watch() {
  c10::cuda::set_device(device_);
  AwakeTime awake(monotonic_seconds(), kLongestGapSeconds);
  std::uint64_t waited_for = 0;
  double since = 0;
  while (!stop_) {
    std::this_thread::sleep_for(kWatchPeriod);
    try {
      const double now = awake.advance(monotonic_seconds());
      const std::shared_ptr<StreamWork> work = look();
      if (host_.reported_failure() != ExitCode::kDone) throw PeerFailed(host_.reported_failure());
      if (work == nullptr) continue;
      if (std::exchange(waited_for, work->sequence()) != work->sequence()) since = now;
      if (now - since > deadline_seconds_) {
        throw Error(
            ExitCode::kStalled,
            fmt::format("rank {} waited {} s for \"{}\" on the GPU", world_.rank, deadline_seconds_, work->name()),
            "look at the other ranks' last log lines; a slow step needs a larger ddp_timeout");
      }
    } catch (const std::exception&) {
      // PeerFailed, Error, or a CUDA error of the event query: all end the communicator.
      give_up(std::current_exception());
      return;
    }
  }
}

void NcclCommunicator::check_tensor(const at::Tensor& tensor, std::string_view name) const {
  DTRAIN_CHECK(tensor.defined() && tensor.is_cuda() && tensor.get_device() == device_ && tensor.is_contiguous(),
               "\"{}\" needs a contiguous tensor on cuda:{}", name, static_cast<int>(device_));
}

template <class Call>
WorkPtr NcclCommunicator::start(std::string_view operation, std::string_view name, std::int64_t bytes,
                                const at::Tensor& first, const at::Tensor& second, const Call& call) {
  const c10::cuda::CUDAGuard guard(device_);
  auto work = std::make_shared<StreamWork>(*this, std::string(name), host_.recorder().started(operation, name, bytes));
  at::cuda::CUDAEvent ready;
  ready.record(c10::cuda::getCurrentCUDAStream(device_));
  ready.block(stream_);
  // The caching allocator must not hand the memory out before this stream is done with it.
  c10::cuda::CUDACachingAllocator::recordStream(first.storage().data_ptr(), stream_);
  c10::cuda::CUDACachingAllocator::recordStream(second.storage().data_ptr(), stream_);
  ncclResult_t result = ncclSuccess;
  {
    const std::lock_guard lock(mutex_);
    if (broken_) std::rethrow_exception(broken_);
    work->record_start(stream_);
    result = call(comm_, stream_.stream());
  }
  settle(result, fmt::format("\"{}\"", name));
  work->record_end(stream_);
  const std::lock_guard lock(mutex_);
  under_way_.push_back(work);
  return work;
}

WorkPtr NcclCommunicator::all_reduce_sum(const at::Tensor& tensor, std::string_view name) {
  check_tensor(tensor, name);
  const ncclDataType_t type = nccl_type(tensor.scalar_type());
  const auto bytes = static_cast<std::int64_t>(tensor.nbytes());
  return start("all_reduce", name, bytes, tensor, tensor, [&](ncclComm_t comm, cudaStream_t stream) {
    return ncclAllReduce(tensor.data_ptr(), tensor.data_ptr(), static_cast<std::size_t>(tensor.numel()), type, ncclSum,
                         comm, stream);
  });
}

WorkPtr NcclCommunicator::broadcast(const at::Tensor& tensor, int root, std::string_view name) {
  check_tensor(tensor, name);
  DTRAIN_CHECK(root >= 0 && root < size(), "root {} of {} ranks in \"{}\"", root, size(), name);
  const auto bytes = static_cast<std::int64_t>(tensor.nbytes());
  return start("broadcast of a tensor", name, bytes, tensor, tensor, [&](ncclComm_t comm, cudaStream_t stream) {
    return ncclBroadcast(tensor.data_ptr(), tensor.data_ptr(), tensor.nbytes(), ncclUint8, root, comm, stream);
  });
}

WorkPtr NcclCommunicator::all_gather(const at::Tensor& output, const at::Tensor& input, std::string_view name) {
  check_tensor(output, name);
  check_tensor(input, name);
  DTRAIN_CHECK(output.scalar_type() == input.scalar_type() && output.numel() == input.numel() * size(),
               "\"{}\": the output has {} elements, {} ranks with {} each were expected", name, output.numel(), size(),
               input.numel());
  const auto given = static_cast<std::int64_t>(input.nbytes());
  return start("all_gather of tensors", name, given, output, input, [&](ncclComm_t comm, cudaStream_t stream) {
    return ncclAllGather(input.data_ptr(), output.data_ptr(), input.nbytes(), ncclUint8, comm, stream);
  });
}

}  // namespace dtrain
