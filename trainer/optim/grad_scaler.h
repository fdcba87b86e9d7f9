// GradScaler: dynamic loss scaling for float16, with torch.amp.GradScaler's constants. Equal on all ranks as long as
// update() gets the same answer on all of them (the control word's).
#pragma once

#include <cstdint>

#include "trainer/models/safetensors.h"

namespace dtrain {

struct GradScalerOptions {
  double init_scale = 65536;
  double growth_factor = 2;
  double backoff_factor = 0.5;
  std::int64_t growth_interval = 2000;  // good steps in a row
};

class GradScaler {
 public:
  explicit GradScaler(GradScalerOptions options = {}) : options_(options), scale_(options.init_scale) {}

  // Multiply the loss by it before backward; divide gradients and their norm by it afterwards.
  [[nodiscard]] double scale() const noexcept { return scale_; }
  // After the gradients of a step are known: false means that the step must be skipped (optimizer and schedule).
  [[nodiscard]] bool update(bool gradients_finite);

  // "grad_scaler.scale" float64 and "grad_scaler.good_steps" int64, for optimizer.safetensors.
  [[nodiscard]] NamedTensors state() const;
  // Throws Error(kData) when a tensor is missing or makes no sense.
  void load_state(const SafetensorsFile& file);

 private:
  GradScalerOptions options_;
  double scale_;
  std::int64_t good_steps_ = 0;
};

}  // namespace dtrain
