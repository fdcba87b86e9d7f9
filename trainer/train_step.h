// TrainStep: one optimizer update over all ranks, all or none.
//
// The loss of every micro-batch is divided by the weight of the whole step (all ranks, all micro-batches), agreed
// before backward: any split of a step gives the same gradient up to rounding. After the reduction the ranks exchange
// one control word each; only when every loss and the gradient are finite does any rank touch its weights.
// LibTorch's own generator is seeded anew for every micro-batch, so that models which draw from it resume exactly too.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include <c10/core/Device.h>

#include "datasets/batch.h"
#include "dist/host_comm.h"
#include "dist/reducer.h"
#include "trainer/models/model.h"
#include "trainer/optim/grad_scaler.h"
#include "trainer/optim/optimizer.h"
#include "trainer/precision.h"
#include "trainer/spike_watch.h"
#include "trainer/step_spans.h"

namespace dtrain {

struct StepOptions {
  std::uint64_t seed = 42;  // of the random draws in forward
  double max_grad_norm = 1.0;
  Precision precision = Precision::kFloat32;
  c10::Device device = c10::Device(c10::kCPU);
  // A rank that runs out of memory in forward or backward takes the others along: OutOfMemory on all. Otherwise what
  // the allocator throws leaves run() on that rank only.
  bool agree_on_memory = false;
  // Sums do not depend on the number of ranks: rank 0 has the first micro-batches of a step, and the reducer a fixed
  // tree.
  bool reproducible = false;
  // A loss or gradient that is not finite skips the update instead of ending the run.
  bool skip_not_finite = false;
  // Warn of a loss this many standard deviations above those before, and name its worst example; 0: never.
  double loss_spike = 0;
};

// What happens inside of a step; each may be empty.
struct StepEvents {
  std::function<void()> substep_end;  // after each micro-batch but the last
  std::function<void()> pre_optimizer_step;
  std::function<void()> optimizer_step;
};

struct StepResult {
  double loss = 0;                  // mean over the labels of the step, all ranks
  double grad_norm = 0;             // of the reduced gradient, before clipping
  std::int64_t examples = 0;        // all ranks, without fillers
  std::int64_t tokens = 0;          // all ranks, without padding and fillers
  std::int64_t input_elements = 0;  // ids fed to the model, padding included, all ranks; 0 without ids
  StepSpans spans;                  // without `data`
  bool updated = true;              // false: not all numbers were finite, the weights are as before
  int signal = 0;                   // the largest signal number that any rank has received, 0 for none
};

// The parts a step works on; they outlive it.
struct StepParts {
  Model& model;
  const std::vector<NamedParameter>& parameters;
  Optimizer& optimizer;
  Reducer& reducer;
  HostComm& host;
  GradScaler& scaler;  // used with kFloat16 only
  StepEvents events = {};
};

class TrainStep {
 public:
  TrainStep(StepParts parts, StepOptions options)
      : parts_(std::move(parts)), options_(options), spikes_(options.loss_spike) {}

  // Collective. All ranks give the same number of micro-batches, `step` (1 is the first) and learning rates, by
  // parameter group; `signal` is what this rank has received. When a loss or the gradient is not finite on any rank, no
  // rank changes its weights; all throw the same Error(kData) that names the examples, or warn, as skip_not_finite says
  // (with float16 the update is skipped silently, as long as a smaller scale can help). Throws Error(kDisagree) when
  // the ranks are at different steps, OutOfMemory as agree_on_memory says.
  [[nodiscard]] StepResult run(const std::vector<Batch>& micro_batches, std::int64_t step,
                               std::span<const double> learning_rates, int signal);

 private:
  struct Computed {
    std::vector<double> loss_sums;      // by micro-batch; empty when memory ran out
    std::vector<at::Tensor> loss_each;  // by micro-batch, of each example; may be undefined
    bool out_of_memory = false;
  };
  [[nodiscard]] Computed forward_and_backward(const std::vector<Batch>& micro_batches, std::int64_t step, double factor,
                                              StepSpans& spans);

  StepParts parts_;
  StepOptions options_;
  SpikeWatch spikes_;
};

// `batch` with its tensors on `device`.
[[nodiscard]] Batch to_device(const Batch& batch, c10::Device device);

}  // namespace dtrain
