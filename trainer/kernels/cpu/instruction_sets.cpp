#include "trainer/kernels/cpu/instruction_sets.h"

#include <algorithm>
#include <cstdlib>
#include <string_view>

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

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

#if defined(__x86_64__) && defined(__linux__)
// The kernel saves the tiles of a process that asked for it only: "Using XSTATE features in user space applications",
// Documentation/arch/x86/xstate.rst of Linux.
bool kernel_saves_tiles() {
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;               // XFEATURE_XTILEDATA
  return ::syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

bool cpu_has_tiles() {
  constexpr unsigned kTile = 1U << 24;
  constexpr unsigned kBfloat16 = 1U << 22;
  unsigned a = 0;
  unsigned b = 0;
  unsigned c = 0;
  unsigned d = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return false;
  return (d & kTile) != 0 && (d & kBfloat16) != 0;
}
#endif

}  // namespace

bool has_avx512_bfloat16() {
#if defined(__x86_64__)
  return best_instruction_set() == InstructionSet::kAvx512 && __builtin_cpu_supports("avx512bf16") != 0;
#else
  return false;
#endif
}

bool has_amx_bfloat16() {
#if defined(__x86_64__) && defined(__linux__)
  static const bool has = best_instruction_set() == InstructionSet::kAvx512 && cpu_has_tiles() && kernel_saves_tiles();
  return has;
#else
  return false;
#endif
}

InstructionSet best_instruction_set() {
  static const InstructionSet best = std::min(of_this_machine(), asked_for());
  return best;
}

}  // namespace dtrain::cpu
