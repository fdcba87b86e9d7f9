#include "trainer/precision.h"

#include <array>

#include <ATen/autocast_mode.h>

#include "core/log.h"

namespace dtrain {

bool cpu_has_bfloat16() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx512bf16") != 0;
#else
  return true;
#endif
}

Precision wanted_precision(const TrainingConfig& training) {
  if (training.bf16) return Precision::kBfloat16;
  if (training.fp16) return Precision::kFloat16;
  return Precision::kFloat32;
}

Precision agreed_precision(Precision wanted, c10::Device device, HostComm& host) {
  if (wanted != Precision::kBfloat16 || !device.is_cpu()) return wanted;
  std::array<std::int64_t, 1> without = {cpu_has_bfloat16() ? 0 : 1};
  host.all_reduce_sum("CPUs without bfloat16", std::span<std::int64_t>(without));
  if (without[0] == 0) return wanted;
  if (host.rank() == 0) {
    log::warning("training.bf16: {} has no bfloat16 arithmetic; products are computed in float32, which is faster here",
                 host.size() == 1 ? "this CPU" : fmt::format("the CPU of {} of {} ranks", without[0], host.size()));
  }
  return Precision::kFloat32;
}

AutocastScope::AutocastScope(c10::DeviceType device, Precision precision)
    : device_(device), active_(precision != Precision::kFloat32) {
  if (!active_) return;
  was_enabled_ = at::autocast::is_autocast_enabled(device_);
  previous_type_ = static_cast<int>(at::autocast::get_autocast_dtype(device_));
  at::autocast::set_autocast_enabled(device_, true);
  at::autocast::set_autocast_dtype(device_, precision == Precision::kBfloat16 ? at::kBFloat16 : at::kHalf);
  at::autocast::increment_nesting();
}

AutocastScope::~AutocastScope() {
  if (!active_) return;
  if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
  at::autocast::set_autocast_enabled(device_, was_enabled_);
  at::autocast::set_autocast_dtype(device_, static_cast<at::ScalarType>(previous_type_));
}

}  // namespace dtrain
