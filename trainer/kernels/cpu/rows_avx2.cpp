// Row kernels for AVX2 and F16C. The pragma, not a compiler flag, selects the instructions: only what follows it is
// built with them, so nothing from the headers above is.
#include "trainer/kernels/cpu/rows.h"

#if defined(__x86_64__)
#include <immintrin.h>

#pragma GCC target("avx2,f16c")

namespace dtrain::cpu {
namespace {

struct Avx2 {
  using Vector = __m256i;
  using Floats = __m256;
  static constexpr int kBlocks = 4;
  static constexpr int kUnroll = 2;
  static constexpr int kFloats = 8;

  static Vector set(std::uint32_t value) { return _mm256_set1_epi64x(value); }
  // In the order that makes store_bits write the blocks one after the other.
  static Vector block_counters(std::uint32_t first) {
    return _mm256_add_epi32(set(first), _mm256_set_epi64x(3, 1, 2, 0));
  }
  static Vector multiply(Vector a, Vector b) { return _mm256_mul_epu32(a, b); }
  static Vector high_halves(Vector a) { return _mm256_srli_epi64(a, 32); }
  static Vector xor3(Vector a, Vector b, Vector c) { return _mm256_xor_si256(_mm256_xor_si256(a, b), c); }
  static void store_bits(std::uint16_t* bits, Vector w0, Vector w1, Vector w2, Vector w3) {
    const Vector front = _mm256_blend_epi32(w0, _mm256_slli_epi64(w1, 32), 0xAA);
    const Vector back = _mm256_blend_epi32(w2, _mm256_slli_epi64(w3, 32), 0xAA);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(bits), _mm256_unpacklo_epi64(front, back));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(bits + 16), _mm256_unpackhi_epi64(front, back));
  }

  static Floats broadcast(float value) { return _mm256_set1_ps(value); }
  static Floats multiply(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
  static Floats add(Floats a, Floats b) { return _mm256_add_ps(a, b); }
  static Floats kept(const std::uint16_t* bits, std::uint32_t threshold, Floats value) {
    const __m128i drawn = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bits));
    const __m128i limit = _mm_set1_epi16(static_cast<short>(threshold));
    const __m128i keep = _mm_cmpeq_epi16(_mm_max_epu16(drawn, limit), drawn);
    return _mm256_and_ps(value, _mm256_castsi256_ps(_mm256_cvtepi16_epi32(keep)));
  }

  template <Type kType, class Pointer>
  static Floats load(const Pointer* from) {
    if constexpr (kType == Type::kFloat) {
      return _mm256_loadu_ps(from);
    } else {
      const __m128i raw = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
      if constexpr (kType == Type::kHalf) return _mm256_cvtph_ps(raw);
      return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(raw), 16));
    }
  }

  template <Type kType, class Pointer>
  static void store(Pointer* to, Floats value) {
    if constexpr (kType == Type::kFloat) {
      _mm256_storeu_ps(to, value);
    } else {
      __m128i raw;
      if constexpr (kType == Type::kHalf) {
        raw = _mm256_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
      } else {
        // Round to nearest even; NaN becomes the one quiet NaN that LibTorch writes.
        const __m256i all = _mm256_castps_si256(value);
        const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(all, 16), _mm256_set1_epi32(1));
        const __m256i sum = _mm256_add_epi32(all, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF)));
        const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(value, value, _CMP_UNORD_Q));
        const __m256i top = _mm256_blendv_epi8(_mm256_srli_epi32(sum, 16), _mm256_set1_epi32(0x7FC0), nan);
        const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(top, top), 0xD8);
        raw = _mm256_castsi256_si128(packed);
      }
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to), raw);
    }
  }
};

#include "trainer/kernels/cpu/row_template.h"

}  // namespace

const RowKernels* avx2_row_kernels() {
  static constexpr RowKernels kKernels = make_row_kernels<Avx2>("AVX2");
  return &kKernels;
}

}  // namespace dtrain::cpu

#else

namespace dtrain::cpu {
const RowKernels* avx2_row_kernels() { return nullptr; }
}  // namespace dtrain::cpu

#endif
