// Precision of the products in forward and backward, and the scope in which LibTorch's autocast applies it. Weights,
// gradients and optimizer state stay float32 in all three.
#pragma once

#include <c10/core/Device.h>

namespace dtrain {

enum class Precision { kFloat32, kBfloat16, kFloat16 };

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
