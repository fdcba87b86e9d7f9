// Optimizer: updates parameters from their gradients. State lives in flat float32 buffers, one pass per step.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "trainer/models/safetensors.h"
#include "trainer/optim/parameter_groups.h"

namespace dtrain {

class Optimizer {
 public:
  virtual ~Optimizer() = default;
  // One update with gradients multiplied by `gradient_scale` (clipping and fp16 unscaling folded in). Local.
  virtual void step(double learning_rate, double gradient_scale) = 0;
  // Everything needed to go on exactly: named tensors (per parameter: "<name>.exp_avg", ...) and the update count.
  [[nodiscard]] virtual NamedTensors state() const = 0;
  // Throws Error(kData) when a tensor is missing or has another shape.
  virtual void load_state(const SafetensorsFile& file) = 0;
};

struct AdamWOptions {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0.0;
};

// AdamW (Loshchilov & Hutter 2019) with torch.optim.AdamW's arithmetic.
[[nodiscard]] std::unique_ptr<Optimizer> make_adamw(std::vector<NamedParameter> parameters,
                                                    const AdamWOptions& options);

// L2 norm over all gradients, as torch.nn.utils.clip_grad_norm_ computes it: norm of the per-tensor norms, float32.
[[nodiscard]] double gradient_norm(const std::vector<NamedParameter>& parameters);
// min(1, max_norm / (norm + 1e-6)); 1 when max_norm is 0.
[[nodiscard]] double clip_coefficient(double norm, double max_norm);

}  // namespace dtrain
