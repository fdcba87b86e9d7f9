// Optimizer: updates parameters from their gradients. State lives in flat float32 buffers, one pass per step.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "trainer/models/safetensors.h"
#include "trainer/optim/parameter_groups.h"

namespace dtrain {

class Optimizer {
 public:
  virtual ~Optimizer() = default;
  // One update with gradients multiplied by `gradient_scale` (clipping and fp16 unscaling folded in); on a GPU that
  // scales the gradients in place. `learning_rates`: by NamedParameter::group. A parameter without a gradient, or that
  // does not require one, is left alone, and so is its state. Local, unless sharded_optimizer.h says otherwise.
  virtual void step(std::span<const double> learning_rates, double gradient_scale) = 0;
  // One rate for all: there are no groups.
  void step(double learning_rate, double gradient_scale) { step(std::span(&learning_rate, 1), gradient_scale); }
  // Everything needed to go on exactly, per parameter: for AdamW "<name>.exp_avg", "<name>.exp_avg_sq" and
  // "<name>.step" (int64, the updates it had). Views of the live state, so write or copy them before the next step.
  [[nodiscard]] virtual NamedTensors state() const = 0;
  // Throws Error(kData) when a tensor is missing or has another shape or type; then nothing has been loaded.
  virtual void load_state(const SafetensorsFile& file) = 0;
  // What the state takes on this rank.
  [[nodiscard]] virtual std::int64_t state_bytes() const;
};

struct AdamWOptions {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0.0;  // of the parameters with decay == true
};

// AdamW (Loshchilov & Hutter 2019) with torch.optim.AdamW's arithmetic: float32 elements, float64 bias corrections.
// All parameters: float32, dense, contiguous, on one device. On the CPU the result does not depend on the number of
// threads.
[[nodiscard]] std::unique_ptr<Optimizer> make_adamw(std::vector<NamedParameter> parameters,
                                                    const AdamWOptions& options);

struct OptimizerOptions {
  std::string name = "adamw_torch_fused";  // training.optim
  // training.optim_args, "momentum=0.9,nesterov=true": momentum, dampening, nesterov of sgd; lr_decay, eps of adagrad;
  // momentum, alpha, eps, centered of rmsprop.
  std::string arguments;
  AdamWOptions adamw;  // weight decay: of all; betas: also of lion
};

// Whether updating a part of a parameter gives the same bits there as updating the whole: so with AdamW. The others use
// LibTorch's operations, which may round differently at the ends of what each thread gets, or need sums over all of it.
[[nodiscard]] bool may_be_cut(const OptimizerOptions& options);

// adamw_torch(_fused), sgd, adagrad and rmsprop as torch.optim has them, adafactor as transformers' Trainer sets it up,
// lion (lion_32bit). Throws Error(kUsage) for arguments that the optimizer does not take.
[[nodiscard]] std::unique_ptr<Optimizer> make_optimizer(std::vector<NamedParameter> parameters,
                                                        const OptimizerOptions& options);

// L2 norm over all gradients (torch.nn.utils.clip_grad_norm_'s: norm of the norms per tensor). NaN or infinite when any
// gradient is. On the CPU it does not depend on the number of threads. 0 when no parameter has a gradient. Local.
[[nodiscard]] double gradient_norm(const std::vector<NamedParameter>& parameters);

// min(1, max_norm / (norm + 1e-6)); 1 when max_norm is 0.
[[nodiscard]] double clip_coefficient(double norm, double max_norm);

}  // namespace dtrain
