// Communicator: collectives on tensors between all ranks. The one contract of the class: every rank starts the same
// collectives, on tensors of equal shape and type, in the same order.
//
// Collectives are started and return a Work; the tensor belongs to the collective until Work::wait() has returned.
// Works complete in the order in which they were started. A Communicator is used by one thread per rank at a time
// (gradient hooks run in the thread that calls backward on a CPU; on a GPU the device's autograd thread stands in for
// it). Sums are taken in one fixed order: every rank receives the same bits, and two runs do.
#pragma once

#include <memory>
#include <string_view>

#include <ATen/core/Tensor.h>

namespace dtrain {

// One started collective.
class Work {
 public:
  virtual ~Work() = default;
  // Returns when the result may be read: on a CPU when it is there, on a GPU when the current stream waits for it.
  // Throws Error when the collective failed or its deadline passed.
  virtual void wait() = 0;
  [[nodiscard]] virtual bool done() = 0;
  // Seconds the collective itself took; 0 before it is done.
  [[nodiscard]] virtual double elapsed() = 0;
};

using WorkPtr = std::shared_ptr<Work>;

// One with nothing to do.
class FinishedWork final : public Work {
 public:
  void wait() override {}
  bool done() override { return true; }
  double elapsed() override { return 0; }
};

class Communicator {
 public:
  virtual ~Communicator() = default;

  [[nodiscard]] virtual int rank() const = 0;
  [[nodiscard]] virtual int size() const = 0;
  // "shared memory", "mpi", "nccl", "threads", "single": for messages and `dtrain doctor`.
  [[nodiscard]] virtual std::string_view backend() const = 0;

  // Collective. In-place sum over ranks of a contiguous floating-point or integer tensor.
  [[nodiscard]] virtual WorkPtr all_reduce_sum(const at::Tensor& tensor, std::string_view name) = 0;
  // Collective. In-place copy from `root`.
  [[nodiscard]] virtual WorkPtr broadcast(const at::Tensor& tensor, int root, std::string_view name) = 0;
  // Collective. `output` is [size, ...shape of input], contiguous; row r becomes the input of rank r.
  [[nodiscard]] virtual WorkPtr all_gather(const at::Tensor& output, const at::Tensor& input,
                                           std::string_view name) = 0;
};

}  // namespace dtrain
