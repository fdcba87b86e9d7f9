// Row kernels for AVX-512 (F, BW, DQ, VL). As for AVX2, the pragma confines the instructions to what follows it.
#include "trainer/kernels/cpu/rows.h"

#if defined(__x86_64__)
#include <immintrin.h>

#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,f16c")

namespace dtrain::cpu {
namespace {

struct Avx512 {
  using Vector = __m512i;
  using Floats = __m512;
  static constexpr int kBlocks = 8;
  static constexpr int kUnroll = 2;
  static constexpr int kFloats = 16;

  static Vector set(std::uint32_t value) { return _mm512_set1_epi64(value); }
  // In the order that makes store_bits write the blocks one after the other.
  static Vector block_counters(std::uint32_t first) {
    return _mm512_add_epi32(set(first), _mm512_set_epi64(7, 3, 6, 2, 5, 1, 4, 0));
  }
  static Vector multiply(Vector a, Vector b) { return _mm512_mul_epu32(a, b); }
  static Vector high_halves(Vector a) { return _mm512_srli_epi64(a, 32); }
  static Vector xor3(Vector a, Vector b, Vector c) { return _mm512_ternarylogic_epi32(a, b, c, 0x96); }
  static void store_bits(std::uint16_t* bits, Vector w0, Vector w1, Vector w2, Vector w3) {
    const Vector front = _mm512_mask_blend_epi32(0xAAAA, w0, _mm512_slli_epi64(w1, 32));
    const Vector back = _mm512_mask_blend_epi32(0xAAAA, w2, _mm512_slli_epi64(w3, 32));
    _mm512_storeu_si512(bits, _mm512_unpacklo_epi64(front, back));
    _mm512_storeu_si512(bits + 32, _mm512_unpackhi_epi64(front, back));
  }

  static Floats broadcast(float value) { return _mm512_set1_ps(value); }
  static Floats multiply(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
  static Floats add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
  static Floats kept(const std::uint16_t* bits, std::uint32_t threshold, Floats value) {
    const __m256i drawn = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bits));
    const __mmask16 keep = _mm256_cmpge_epu16_mask(drawn, _mm256_set1_epi16(static_cast<short>(threshold)));
    return _mm512_maskz_mov_ps(keep, value);
  }

  template <Type kType, class Pointer>
  static Floats load(const Pointer* from) {
    if constexpr (kType == Type::kFloat) {
      return _mm512_loadu_ps(from);
    } else {
      const __m256i raw = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
      if constexpr (kType == Type::kHalf) return _mm512_cvtph_ps(raw);
      return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(raw), 16));
    }
  }

  template <Type kType, class Pointer>
  static void store(Pointer* to, Floats value) {
    if constexpr (kType == Type::kFloat) {
      _mm512_storeu_ps(to, value);
    } else {
      __m256i raw;
      if constexpr (kType == Type::kHalf) {
        raw = _mm512_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
      } else {
        // Round to nearest even; NaN becomes the one quiet NaN that LibTorch writes.
        const __m512i all = _mm512_castps_si512(value);
        const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(all, 16), _mm512_set1_epi32(1));
        const __m512i sum = _mm512_add_epi32(all, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF)));
        const __mmask16 nan = _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q);
        raw =
            _mm512_cvtepi32_epi16(_mm512_mask_blend_epi32(nan, _mm512_srli_epi32(sum, 16), _mm512_set1_epi32(0x7FC0)));
      }
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), raw);
    }
  }
};

#include "trainer/kernels/cpu/row_template.h"

}  // namespace

const RowKernels* avx512_row_kernels() {
  static constexpr RowKernels kKernels = make_row_kernels<Avx512>("AVX-512");
  return &kKernels;
}

}  // namespace dtrain::cpu

#else

namespace dtrain::cpu {
const RowKernels* avx512_row_kernels() { return nullptr; }
}  // namespace dtrain::cpu

#endif
