// Which of the kernels this machine can run. Not for the files that are compiled for one instruction set.
#pragma once

#include <vector>

namespace dtrain::cpu {

// What the files of each set are compiled for: AVX2, FMA and F16C; AVX-512 F, BW, DQ and VL.
enum class InstructionSet { kGeneric, kAvx2, kAvx512 };

// The best of this machine. The environment variable DTRAIN_CPU_KERNELS = generic, avx2 or avx512 asks for less, for
// measurements; throws a usage error for another value.
InstructionSet best_instruction_set();

// What computes with bfloat16, where best_instruction_set() is AVX-512: instructions for pairs of numbers, and for
// tiles.
bool has_avx512_bfloat16();
bool has_amx_bfloat16();

// Those of the three (null where there is none) that this machine can run, slowest first.
template <class Kernels>
std::vector<const Kernels*> runnable(const Kernels* generic, const Kernels* avx2, const Kernels* avx512) {
  std::vector<const Kernels*> result;
  const InstructionSet best = best_instruction_set();
  if (generic != nullptr) result.push_back(generic);
  if (avx2 != nullptr && best >= InstructionSet::kAvx2) result.push_back(avx2);
  if (avx512 != nullptr && best >= InstructionSet::kAvx512) result.push_back(avx512);
  return result;
}

// The last of those; null: there is none.
template <class Kernels>
const Kernels* fastest(const std::vector<const Kernels*>& available) {
  return available.empty() ? nullptr : available.back();
}

}  // namespace dtrain::cpu
