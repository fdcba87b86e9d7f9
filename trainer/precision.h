// Precision of the products in forward and backward, and the scope in which LibTorch's autocast applies it. Weights,
// gradients and optimizer state stay float32 in all three.
#pragma once

#include <c10/core/Device.h>

#include "configs/train_config.h"
#include "dist/host_comm.h"

namespace dtrain {

enum class Precision { kFloat32, kBfloat16, kFloat16 };

// Whether this CPU multiplies bfloat16 numbers itself (AVX512-BF16, which every CPU with AMX has too). Without it
// LibTorch converts element by element: measured on a Zen 3, seven times slower than float32.
[[nodiscard]] bool cpu_has_bfloat16();

// As bf16 and fp16 say.
[[nodiscard]] Precision wanted_precision(const TrainingConfig& training);

// Collective. `wanted`, or float32 for bfloat16 on CPUs of which one has no bfloat16 arithmetic; rank 0 warns then.
[[nodiscard]] Precision agreed_precision(Precision wanted, c10::Device device, HostComm& host);

// While it lives, autocast is on for `device` in this thread (kFloat32: nothing happens). Scopes nest; the cache of
// cast weights goes with the outermost one, as with torch.autocast.
class AutocastScope {
 public:
  AutocastScope(c10::DeviceType device, Precision precision);
  ~AutocastScope();
  AutocastScope(const AutocastScope&) = delete;
  AutocastScope& operator=(const AutocastScope&) = delete;

 private:
  c10::DeviceType device_;
  bool active_;
  bool was_enabled_ = false;
  int previous_type_ = 0;  // at::ScalarType
};

}  // namespace dtrain
