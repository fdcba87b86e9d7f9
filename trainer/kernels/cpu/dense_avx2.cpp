// Products and activations for AVX2; see rows_avx2.cpp about the pragma.
#include "trainer/kernels/cpu/dense.h"

#if defined(__x86_64__)
#include <immintrin.h>

#pragma GCC target("avx2,fma")

namespace dtrain::cpu {
namespace {

// clang-format off
#include "trainer/kernels/cpu/lanes_template_avx2.h"
#include "trainer/kernels/cpu/lanes_template.h"
#include "trainer/kernels/cpu/dense_template.h"
// clang-format on

}  // namespace

const DenseKernels* avx2_dense_kernels() {
  static constexpr DenseKernels kKernels = dense_table<Avx2>("AVX2");
  return &kKernels;
}

}  // namespace dtrain::cpu

#else

namespace dtrain::cpu {
const DenseKernels* avx2_dense_kernels() { return nullptr; }
}  // namespace dtrain::cpu

#endif
