#include "dist/cpu_communicator.h"

#include <cstring>
#include <utility>

#include "core/clock.h"
#include "core/fault.h"
#include "dist/reduce_kernels.h"

namespace dtrain {
namespace {

std::byte* data_of(const at::Tensor& tensor) { return static_cast<std::byte*>(tensor.data_ptr()); }

}  // namespace

void check_cpu_tensor(const at::Tensor& tensor, bool for_sum, std::string_view name) {
  DTRAIN_CHECK(tensor.defined() && tensor.device().is_cpu() && tensor.is_contiguous() && !tensor.is_sparse(),
               "\"{}\" needs a contiguous tensor on the CPU", name);
  DTRAIN_CHECK(!for_sum || can_sum(tensor.scalar_type()), "\"{}\" cannot sum tensors of type {}", name,
               c10::toString(tensor.scalar_type()));
}

class CpuCommunicator::Task final : public Work {
 public:
  Task(FlightRecorder& recorder, std::uint64_t sequence, std::function<void()> action)
      : recorder_(recorder), sequence_(sequence), action_(std::move(action)) {}

  void wait() override {
    const FlightRecorder::Wait waiting(recorder_);
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return done_; });
    if (error_) std::rethrow_exception(error_);
  }
  bool done() override {
    const std::lock_guard lock(mutex_);
    return done_;
  }
  double elapsed() override {
    const std::lock_guard lock(mutex_);
    return seconds_;
  }

  // The action must not outlive this call: it holds the tensor.
  std::exception_ptr run() {
    const Stopwatch watch;
    std::exception_ptr error;
    try {
      action_();
      recorder_.ended(sequence_);
    } catch (const std::exception&) {
      error = std::current_exception();
    }
    complete(error, watch.seconds());
    return error;
  }
  void complete(const std::exception_ptr& error, double seconds) {
    action_ = nullptr;
    const std::lock_guard lock(mutex_);
    error_ = error;
    seconds_ = seconds;
    done_ = true;
    changed_.notify_all();
  }

 private:
  FlightRecorder& recorder_;
  std::uint64_t sequence_;
  std::function<void()> action_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool done_ = false;
  double seconds_ = 0;
  std::exception_ptr error_;
};

CpuCommunicator::CpuCommunicator(Parts parts, const HostComm& host)
    : parts_(std::move(parts)),
      recorder_(host.recorder()),
      channel_(parts_.world, parts_.plan, parts_.block, parts_.cross.get(), host, stop_, parts_.deadline_seconds),
      thread_([this] { run(); }) {}

CpuCommunicator::~CpuCommunicator() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

WorkPtr CpuCommunicator::start(std::string_view operation, std::string_view name, std::int64_t bytes,
                               std::function<void()> action) {
  auto task = std::make_shared<Task>(recorder_, recorder_.started(operation, name, bytes), std::move(action));
  {
    const std::lock_guard lock(mutex_);
    queue_.push_back(task);
  }
  changed_.notify_one();
  return task;
}

void CpuCommunicator::run() {
  while (true) {
    std::shared_ptr<Task> task;
    std::exception_ptr broken;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return stop_ || !queue_.empty(); });
      if (queue_.empty()) return;
      task = std::move(queue_.front());
      queue_.pop_front();
      broken = broken_;
    }
    // After a failure the ranks are out of step: every later collective fails with the first reason.
    if (broken) {
      task->complete(broken, 0);
      continue;
    }
    broken = task->run();
    if (broken) {
      const std::lock_guard lock(mutex_);
      broken_ = broken;
    }
  }
}

WorkPtr CpuCommunicator::all_reduce_sum(const at::Tensor& tensor, std::string_view name) {
  check_cpu_tensor(tensor, true, name);
  const auto number = static_cast<std::int64_t>(recorder_.last_started() + 1);
  if (fault_asked("collective", number, "skip")) return std::make_shared<FinishedWork>();
  const std::int64_t count = tensor.numel() - (fault_asked("collective", number, "resize") ? 1 : 0);
  return start("all_reduce", name, count * tensor.element_size(), [this, tensor, count, name = std::string(name)] {
    channel_.all_reduce_sum(data_of(tensor), tensor.scalar_type(), count, name);
  });
}

WorkPtr CpuCommunicator::broadcast(const at::Tensor& tensor, int root, std::string_view name) {
  check_cpu_tensor(tensor, false, name);
  DTRAIN_CHECK(root >= 0 && root < size(), "root {} of {} ranks in \"{}\"", root, size(), name);
  const auto [node, local] = parts_.places[static_cast<std::size_t>(root)];
  const auto bytes = static_cast<std::int64_t>(tensor.nbytes());
  return start("broadcast of a tensor", name, bytes,
               [this, tensor, node = node, local = local, name = std::string(name)] {
                 channel_.broadcast(data_of(tensor), tensor.nbytes(), local, node, name);
               });
}

WorkPtr CpuCommunicator::all_gather(const at::Tensor& output, const at::Tensor& input, std::string_view name) {
  check_cpu_tensor(output, false, name);
  check_cpu_tensor(input, false, name);
  DTRAIN_CHECK(output.scalar_type() == input.scalar_type() && output.numel() == input.numel() * size(),
               "\"{}\": the output has {} elements, {} ranks with {} each were expected", name, output.numel(), size(),
               input.numel());
  const auto given = static_cast<std::int64_t>(input.nbytes());
  return start("all_gather of tensors", name, given, [this, output, input, name = std::string(name)] {
    const std::size_t bytes = input.nbytes();
    for (int r = 0; r < size(); ++r) {
      std::byte* row = data_of(output) + static_cast<std::size_t>(r) * bytes;
      if (r == rank() && bytes > 0) std::memmove(row, data_of(input), bytes);
      const auto [node, local] = parts_.places[static_cast<std::size_t>(r)];
      channel_.broadcast(row, bytes, local, node, name);
    }
  });
}

}  // namespace dtrain
