// The choice between the kernels of dense.h.
#include "trainer/kernels/cpu/dense.h"

#include "trainer/kernels/cpu/instruction_sets.h"

namespace dtrain::cpu {

const std::vector<const DenseKernels*>& available_dense_kernels() {
  static const auto available = runnable<DenseKernels>(nullptr, avx2_dense_kernels(), avx512_dense_kernels());
  return available;
}

const DenseKernels* dense_kernels() { return fastest(available_dense_kernels()); }

}  // namespace dtrain::cpu
