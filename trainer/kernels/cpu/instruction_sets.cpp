#include "trainer/kernels/cpu/instruction_sets.h"

#include <algorithm>
#include <cstdlib>
#include <string_view>

#include <fmt/format.h>

#include "core/error.h"

namespace dtrain::cpu {
namespace {

InstructionSet of_this_machine() {
#if defined(__x86_64__)
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (avx2 && avx512) return InstructionSet::kAvx512;
  if (avx2) return InstructionSet::kAvx2;
#endif
  return InstructionSet::kGeneric;
}

InstructionSet asked_for() {
  const char* value = std::getenv("DTRAIN_CPU_KERNELS");
  if (value == nullptr || *value == '\0') return InstructionSet::kAvx512;
  const std::string_view name = value;
  if (name == "generic") return InstructionSet::kGeneric;
  if (name == "avx2") return InstructionSet::kAvx2;
  if (name == "avx512") return InstructionSet::kAvx512;
  throw usage_error(fmt::format("environment variable DTRAIN_CPU_KERNELS = \"{}\"", name),
                    "use generic, avx2 or avx512, or unset it");
}

}  // namespace

InstructionSet best_instruction_set() {
  static const InstructionSet best = std::min(of_this_machine(), asked_for());
  return best;
}

}  // namespace dtrain::cpu
