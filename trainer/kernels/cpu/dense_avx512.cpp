// Products and activations for AVX-512; see rows_avx2.cpp about the pragma.
#include "trainer/kernels/cpu/dense.h"

#if defined(__x86_64__)
#include <immintrin.h>

#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,fma")

namespace dtrain::cpu {
namespace {

// clang-format off
#include "trainer/kernels/cpu/lanes_template_avx512.h"
#include "trainer/kernels/cpu/lanes_template.h"
#include "trainer/kernels/cpu/dense_template.h"
// clang-format on

}  // namespace

const DenseKernels* avx512_dense_kernels() {
  static constexpr DenseKernels kKernels = dense_table<Avx512>("AVX-512");
  return &kKernels;
}

}  // namespace dtrain::cpu

#else

namespace dtrain::cpu {
const DenseKernels* avx512_dense_kernels() { return nullptr; }
}  // namespace dtrain::cpu

#endif
