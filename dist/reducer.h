// Reducer: sums the gradients of a module over all ranks while backward is still running.
//
//   Reducer reducer(parameters, communicator, {});
//   for each step: reducer.begin_step(); ...; loss.backward() (hooks call add()); reducer.finish();
//
// Parameters are packed into buckets in reverse order of registration (the order in which gradients usually arrive),
// one order for all ranks whatever the order of arrival. Each parameter's grad() is a view into its bucket, so nothing
// is copied. A bucket's all-reduce starts as soon as its gradients, and those of all buckets before it, are there. With
// gradient accumulation call set_sync(false) for all micro-batches but the last: hooks then only accumulate. A
// parameter that received no gradient in a step counts as zero. Design after c10d's reducer (PyTorch DDP, Li et al.
// 2020, arXiv 2006.15704): first bucket 1 MiB so that communication starts early, 25 MiB afterwards.
// A gradient that is not the view any more (zero_grad sets it to none; create_graph) is copied back into its bucket by
// the hook. An Error in a hook (a second gradient for a parameter whose bucket is on its way, a failed collective)
// leaves backward() and, if that is swallowed, finish() again.
// With fixed_tree the sum has one order whatever the number of ranks: a binary tree over all micro-batches of the step,
// of which rank 0 has the first ones, rank 1 the next. IEEE addition is commutative, so 1, 2, 4, ... ranks with the
// same micro-batches hold the same bits. It takes one more set of buckets for each doubling of a rank's micro-batches.
// One thread at a time. Works with any module; needs nothing else of dtrain. All ranks build it with the same
// parameters in the same order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include <ATen/core/Tensor.h>

#include "dist/communicator.h"

namespace dtrain {

struct ReducerOptions {
  std::int64_t first_bucket_bytes = std::int64_t{1} << 20;
  std::int64_t bucket_bytes = std::int64_t{25} << 20;
  // The number of ranks and that of the micro-batches of a rank must be powers of two.
  bool fixed_tree = false;
};

// Where a parameter's gradient lies: elements [offset, offset + count) of bucket `bucket`. Offsets are multiples of 64
// bytes; the padding between parameters is always zero.
struct GradientSlot {
  std::size_t bucket = 0;
  std::int64_t offset = 0;
  std::int64_t count = 0;
};

class Reducer {
 public:
  // Registers a hook on every parameter (leaf tensors that require a gradient, all on one device; types may differ,
  // each bucket has one). Without a communicator, or with one rank, only the buckets remain. Local.
  Reducer(std::vector<at::Tensor> parameters, std::shared_ptr<Communicator> communicator, ReducerOptions options);
  ~Reducer();  // removes the hooks; gradients stay
  Reducer(const Reducer&) = delete;
  Reducer& operator=(const Reducer&) = delete;

  // Zeroes all gradients (one pass over the buckets) and expects the hooks of a new step. Local.
  void begin_step();
  // Whether the next backward is the last micro-batch of the step, and so starts the all-reduces. Default true.
  void set_sync(bool sync);
  // With fixed_tree: after backward of every micro-batch but the last. Local.
  void end_micro_batch();
  // Parameter `index` has its gradient for this step. Called by the hooks; starts collectives when a bucket is full.
  void add(std::size_t index);
  // Collective. Starts what has not been started, waits for all; then grad() of each parameter is the sum over ranks.
  // Throws what a hook threw before.
  void finish();

  // The flat gradient buffers in the fixed order, and where each parameter lies: for clipping and flat optimizers.
  [[nodiscard]] const std::vector<at::Tensor>& buckets() const;
  [[nodiscard]] const std::vector<GradientSlot>& slots() const;  // by index of the parameter
  // Seconds in which finish() waited for communication in the last step: what overlap did not hide.
  [[nodiscard]] double exposed_seconds() const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace dtrain
