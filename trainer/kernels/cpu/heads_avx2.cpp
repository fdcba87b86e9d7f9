// Attention for AVX2 and FMA; see rows_avx2.cpp about the pragma.
#include "trainer/kernels/cpu/heads.h"

#if defined(__x86_64__)
#include <immintrin.h>

#pragma GCC target("avx2,fma")

namespace dtrain::cpu {
namespace {

// clang-format off
#include "trainer/kernels/cpu/lanes_template_avx2.h"
#include "trainer/kernels/cpu/lanes_template.h"
#include "trainer/kernels/cpu/head_shared_template.h"
#include "trainer/kernels/cpu/head_template.h"
// clang-format on

}  // namespace

const HeadKernels* avx2_head_kernels() {
  static constexpr HeadKernels kKernels{"AVX2", head_forward<Avx2>, head_backward<Avx2>};
  return &kKernels;
}

}  // namespace dtrain::cpu

#else

namespace dtrain::cpu {
const HeadKernels* avx2_head_kernels() { return nullptr; }
}  // namespace dtrain::cpu

#endif
