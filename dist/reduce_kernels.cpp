#include "dist/reduce_kernels.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include "core/error.h"

namespace dtrain {
namespace {

// Elements that stay in the first-level cache while all inputs are added to them.
constexpr std::int64_t kBlock = 2048;

template <class T>
constexpr bool kIsHalf = std::is_same_v<T, c10::BFloat16> || std::is_same_v<T, c10::Half>;

template <class T>
using Accumulator = std::conditional_t<kIsHalf<T>, float, T>;

// Signed overflow is undefined, wrapping is what MPI and NCCL do.
template <class T>
inline T plus(T a, T b) {
  if constexpr (std::is_integral_v<T>) {
    using Unsigned = std::make_unsigned_t<T>;
    return static_cast<T>(static_cast<Unsigned>(a) + static_cast<Unsigned>(b));
  } else {
    return a + b;
  }
}

template <class T>
inline Accumulator<T> widen(T value) {
  return static_cast<Accumulator<T>>(value);
}

// The sums of elements [begin, begin + count) of all inputs, at most kBlock of them.
template <class T>
void sum_block(Accumulator<T>* __restrict sums, std::span<const std::byte* const> inputs, std::int64_t begin,
               std::int64_t count) {
  const T* first = reinterpret_cast<const T*>(inputs[0]) + begin;
  if (inputs.size() == 1) {
    for (std::int64_t i = 0; i < count; ++i) sums[i] = widen(first[i]);
    return;
  }
  const T* second = reinterpret_cast<const T*>(inputs[1]) + begin;
  for (std::int64_t i = 0; i < count; ++i) sums[i] = plus(widen(first[i]), widen(second[i]));
  for (std::size_t r = 2; r < inputs.size(); ++r) {
    const T* next = reinterpret_cast<const T*>(inputs[r]) + begin;
    for (std::int64_t i = 0; i < count; ++i) sums[i] = plus(sums[i], widen(next[i]));
  }
}

template <class T, class Output>
void sum_typed(std::byte* output, std::span<const std::byte* const> inputs, std::int64_t count) {
  auto* out = reinterpret_cast<Output*>(output);
  for (std::int64_t begin = 0; begin < count; begin += kBlock) {
    const std::int64_t size = std::min(kBlock, count - begin);
    if constexpr (std::is_same_v<Output, Accumulator<T>>) {
      sum_block<T>(out + begin, inputs, begin, size);
    } else {
      alignas(64) Accumulator<T> sums[kBlock];
      sum_block<T>(sums, inputs, begin, size);
      for (std::int64_t i = 0; i < size; ++i) out[begin + i] = static_cast<Output>(sums[i]);
    }
  }
}

template <class Visitor>
void visit_type(c10::ScalarType type, const Visitor& visitor) {
  switch (type) {
    case c10::ScalarType::Float:
      return visitor(float{});
    case c10::ScalarType::Double:
      return visitor(double{});
    case c10::ScalarType::BFloat16:
      return visitor(c10::BFloat16{});
    case c10::ScalarType::Half:
      return visitor(c10::Half{});
    case c10::ScalarType::Int:
      return visitor(std::int32_t{});
    case c10::ScalarType::Long:
      return visitor(std::int64_t{});
    default:
      DTRAIN_CHECK(false, "cannot sum tensors of type {}", c10::toString(type));
  }
}

}  // namespace

bool can_sum(c10::ScalarType type) {
  switch (type) {
    case c10::ScalarType::Float:
    case c10::ScalarType::Double:
    case c10::ScalarType::BFloat16:
    case c10::ScalarType::Half:
    case c10::ScalarType::Int:
    case c10::ScalarType::Long:
      return true;
    default:
      return false;
  }
}

c10::ScalarType accumulator_type(c10::ScalarType type) {
  const bool half = type == c10::ScalarType::BFloat16 || type == c10::ScalarType::Half;
  return half ? c10::ScalarType::Float : type;
}

void sum_inputs(c10::ScalarType type, std::byte* output, std::span<const std::byte* const> inputs, std::int64_t count) {
  if (inputs.empty()) return;
  visit_type(type, [&]<class T>(T) { sum_typed<T, T>(output, inputs, count); });
}

void sum_inputs_unrounded(c10::ScalarType type, std::byte* output, std::span<const std::byte* const> inputs,
                          std::int64_t count) {
  if (inputs.empty()) return;
  visit_type(type, [&]<class T>(T) { sum_typed<T, Accumulator<T>>(output, inputs, count); });
}

void round_sums(c10::ScalarType type, std::byte* output, const std::byte* sums, std::int64_t count) {
  visit_type(type, [&]<class T>(T) {
    const auto* in = reinterpret_cast<const Accumulator<T>*>(sums);
    auto* out = reinterpret_cast<T*>(output);
    if constexpr (std::is_same_v<T, Accumulator<T>>) {
      std::memmove(out, in, static_cast<std::size_t>(count) * sizeof(T));
    } else {
      for (std::int64_t i = 0; i < count; ++i) out[i] = static_cast<T>(in[i]);
    }
  });
}

void copy_bytes(std::byte* output, const std::byte* input, std::size_t bytes, bool streaming) {
  if (bytes == 0) return;
#if defined(__SSE2__)
  constexpr std::size_t kLine = 64;
  const std::size_t head = (kLine - reinterpret_cast<std::uintptr_t>(output) % kLine) % kLine;
  if (streaming && bytes >= head + kLine) {
    std::memcpy(output, input, head);
    const std::size_t lines = (bytes - head) / kLine;
    auto* out = reinterpret_cast<__m128i*>(output + head);
    const auto* in = reinterpret_cast<const __m128i*>(input + head);
    for (std::size_t i = 0; i < lines; ++i, out += 4, in += 4) {
      const __m128i a = _mm_loadu_si128(in);
      const __m128i b = _mm_loadu_si128(in + 1);
      const __m128i c = _mm_loadu_si128(in + 2);
      const __m128i d = _mm_loadu_si128(in + 3);
      _mm_stream_si128(out, a);
      _mm_stream_si128(out + 1, b);
      _mm_stream_si128(out + 2, c);
      _mm_stream_si128(out + 3, d);
    }
    _mm_sfence();
    const std::size_t done = head + lines * kLine;
    std::memcpy(output + done, input + done, bytes - done);
    return;
  }
#endif
  static_cast<void>(streaming);
  std::memcpy(output, input, bytes);
}

}  // namespace dtrain
