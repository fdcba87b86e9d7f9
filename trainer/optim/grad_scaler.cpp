#include "trainer/optim/grad_scaler.h"

#include <cmath>

#include <ATen/ops/scalar_tensor.h>

#include "core/error.h"

namespace dtrain {
namespace {

constexpr const char* kScaleName = "grad_scaler.scale";
constexpr const char* kGoodStepsName = "grad_scaler.good_steps";

at::Tensor scalar_of(const SafetensorsFile& file, const char* name, at::ScalarType type) {
  if (!file.has(name)) {
    throw data_error(fmt::format("optimizer.safetensors: no tensor \"{}\"", name),
                     "the checkpoint was not trained with fp16 = true");
  }
  at::Tensor tensor = file.tensor(name);
  if (tensor.numel() != 1 || tensor.scalar_type() != type) {
    throw data_error(fmt::format("optimizer.safetensors: tensor \"{}\" is not one number", name),
                     "use another checkpoint");
  }
  return tensor;
}

}  // namespace

bool GradScaler::update(bool gradients_finite) {
  if (!gradients_finite) {
    scale_ *= options_.backoff_factor;
    good_steps_ = 0;
    return false;
  }
  if (++good_steps_ >= options_.growth_interval) {
    // The peer's scale is a float32; growing past its range would make the loss infinite.
    const double grown = scale_ * options_.growth_factor;
    if (std::isfinite(static_cast<float>(grown))) scale_ = grown;
    good_steps_ = 0;
  }
  return true;
}

NamedTensors GradScaler::state() const {
  return {{kScaleName, at::scalar_tensor(scale_, at::kDouble)},
          {kGoodStepsName, at::scalar_tensor(good_steps_, at::kLong)}};
}

void GradScaler::load_state(const SafetensorsFile& file) {
  const auto scale = scalar_of(file, kScaleName, at::kDouble).item<double>();
  const auto good_steps = scalar_of(file, kGoodStepsName, at::kLong).item<std::int64_t>();
  if (!(scale > 0) || !std::isfinite(scale) || good_steps < 0) {
    throw data_error(
        fmt::format("optimizer.safetensors: loss scale {} after {} good steps makes no sense", scale, good_steps),
        "use another checkpoint");
  }
  scale_ = scale;
  good_steps_ = good_steps;
}

}  // namespace dtrain
