// Attention for AVX-512; see rows_avx2.cpp about the pragma.
#include "trainer/kernels/cpu/heads.h"

#if defined(__x86_64__)
#include <immintrin.h>

#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,fma")

namespace dtrain::cpu {
namespace {

// clang-format off
#include "trainer/kernels/cpu/lanes_template_avx512.h"
#include "trainer/kernels/cpu/lanes_template.h"
#include "trainer/kernels/cpu/head_shared_template.h"
#include "trainer/kernels/cpu/head_template.h"
// clang-format on

}  // namespace

const HeadKernels* avx512_head_kernels() {
  static constexpr HeadKernels kKernels{"AVX-512", head_forward<Avx512>, head_backward<Avx512>};
  return &kKernels;
}

}  // namespace dtrain::cpu

#else

namespace dtrain::cpu {
const HeadKernels* avx512_head_kernels() { return nullptr; }
}  // namespace dtrain::cpu

#endif
