// Attention in bfloat16 for AMX, whose tiles are 16 rows of 64 bytes; see rows_avx2.cpp about the pragma. Intel 64 and
// IA-32 Architectures Software Developer's Manual, volume 1, chapter 18.
#include "trainer/kernels/cpu/heads.h"

#if defined(__x86_64__)
#include <immintrin.h>

#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,amx-tile,amx-bf16,fma")

namespace dtrain::cpu {
namespace {

// clang-format off
#include "trainer/kernels/cpu/lanes_template_avx512.h"
#include "trainer/kernels/cpu/lanes_template.h"
#include "trainer/kernels/cpu/head_shared_template.h"
#include "trainer/kernels/cpu/head_bfloat16_template.h"
// clang-format on

struct alignas(64) TileConfiguration {
  std::uint8_t palette = 1;
  std::uint8_t start_row = 0;
  std::uint8_t reserved[14] = {};
  std::uint16_t bytes_of_a_row[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(TileConfiguration) == 64);

struct AmxDots {
  static constexpr std::int64_t kRows = 32;
  static constexpr std::int64_t kColumns = 32;

  static void enter() {
    static constexpr TileConfiguration kAll;
    _tile_loadconfig(&kAll);
  }
  static void leave() { _tile_release(); }

  // Tiles 0 to 3 are the sums, 4 and 5 rows of the left matrix, 6 and 7 columns of the right one.
  static void block(const PairProduct& p, std::int64_t row, std::int64_t column) {
    float* c = p.c + row * p.c_row + column;
    const std::int64_t c_bytes = p.c_row * static_cast<std::int64_t>(sizeof(float));
    const std::int64_t a_bytes = p.a_row * static_cast<std::int64_t>(sizeof(std::uint16_t));
    const std::int64_t b_bytes = p.b_row * static_cast<std::int64_t>(sizeof(std::uint32_t));
    __asm__ volatile("" ::: "memory");  // the intrinsics do not say that they read memory
    if (p.accumulate) {
      _tile_loadd(0, c, c_bytes);
      _tile_loadd(1, c + 16, c_bytes);
      _tile_loadd(2, c + 16 * p.c_row, c_bytes);
      _tile_loadd(3, c + 16 * p.c_row + 16, c_bytes);
    } else {
      _tile_zero(0);
      _tile_zero(1);
      _tile_zero(2);
      _tile_zero(3);
    }
    const std::uint16_t* a = p.a + row * p.a_row;
    const std::uint32_t* b = p.b + column;
    for (std::int64_t k = 0; k < p.depth; k += 32) {
      _tile_loadd(4, a + k, a_bytes);
      _tile_loadd(5, a + 16 * p.a_row + k, a_bytes);
      _tile_loadd(6, b + k / 2 * p.b_row, b_bytes);
      _tile_loadd(7, b + k / 2 * p.b_row + 16, b_bytes);
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, c, c_bytes);
    _tile_stored(1, c + 16, c_bytes);
    _tile_stored(2, c + 16 * p.c_row, c_bytes);
    _tile_stored(3, c + 16 * p.c_row + 16, c_bytes);
  }
};

}  // namespace

const Bfloat16HeadKernels* amx_bfloat16_head_kernels() {
  static constexpr Bfloat16HeadKernels kKernels{"AMX", bfloat16_head_forward<Avx512, AmxDots>,
                                                bfloat16_head_backward<Avx512, AmxDots>};
  return &kKernels;
}

}  // namespace dtrain::cpu

#else

namespace dtrain::cpu {
const Bfloat16HeadKernels* amx_bfloat16_head_kernels() { return nullptr; }
}  // namespace dtrain::cpu

#endif
