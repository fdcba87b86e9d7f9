// Attention of one head of one example on the CPU: one table of functions per instruction set. Scores exist for a few
// queries at a time only, in the cache; the backward pass computes them again. Plain C++ without LibTorch, for the same
// reason as rows.h.
#pragma once

#include <cstdint>
#include <vector>

#include "trainer/kernels/cpu/rows.h"

namespace dtrain::cpu {

// What is computed, whatever the type of the numbers.
struct HeadShape {
  std::int64_t queries = 0;
  std::int64_t keys = 0;
  std::int64_t head_size = 0;  // a multiple of kHeadSizeUnit
  float scale = 1;
  // With `causal` query i sees keys up to keys - queries + i.
  bool causal = false;
  const float* holes = nullptr;  // [keys] 0 or -infinity, added to the scores; or null
  // Dropout of the probabilities: `drop` holds all but the row, which is first_row + i for query i; columns begin with
  // first_key.
  bool drops = false;
  RowDraw drop{};
  std::uint32_t first_row = 0;
  std::int64_t first_key = 0;
};

template <class Number>
struct HeadInputsOf : HeadShape {
  RowsOf<const Number> q;
  RowsOf<const Number> k;
  RowsOf<const Number> v;
};

template <class Number>
struct HeadGradientsOf {
  RowsOf<const Number> out;   // the result of forward,
  RowsOf<const Number> dout;  // its gradient,
  const float* moments = nullptr;
  RowsOf<Number> dq;  // and what backward writes
  RowsOf<Number> dk;
  RowsOf<Number> dv;
};

// Of float, or of Bfloat16: products of bfloat16 with float sums, all else in float32.
template <class Number>
struct HeadKernelsOf {
  const char* name;
  // out[i] = sum over j of dropped(softmax(scale q[i] k[j] + holes[j])) v[j]; `moments` [queries, 2] receives the
  // largest score of each query and 1 / sum of exponentials.
  void (*forward)(const HeadInputsOf<Number>& inputs, RowsOf<Number> out, float* moments, float* scratch);
  void (*backward)(const HeadInputsOf<Number>& inputs, const HeadGradientsOf<Number>& gradients, float* scratch);
};
using HeadInputs = HeadInputsOf<float>;
using HeadGradients = HeadGradientsOf<float>;
using HeadKernels = HeadKernelsOf<float>;
using Bfloat16HeadKernels = HeadKernelsOf<Bfloat16>;

template <class Number>
constexpr std::int64_t kHeadSizeUnit = sizeof(Number) == sizeof(float) ? 16 : 32;

// Queries worked on together: their scores stay in the first-level cache.
template <class Number>
constexpr std::int64_t kHeadQueries = sizeof(Number) == sizeof(float) ? 24 : 32;

// Floats of scratch for either pass.
template <class Number>
std::int64_t head_scratch(std::int64_t keys, std::int64_t head_size);

const HeadKernels* avx2_head_kernels();  // nullptr when the program was built for another architecture
const HeadKernels* avx512_head_kernels();
// The fastest that this machine can run; nullptr: none.
const HeadKernels* head_kernels();
// Every one that this machine can run, slowest first, for tests and measurements.
const std::vector<const HeadKernels*>& available_head_kernels();

// The same in bfloat16. Those for AVX2 compute in float32 what the others have instructions for.
const Bfloat16HeadKernels* avx2_bfloat16_head_kernels();
const Bfloat16HeadKernels* avx512_bfloat16_head_kernels();
const Bfloat16HeadKernels* amx_bfloat16_head_kernels();
const Bfloat16HeadKernels* bfloat16_head_kernels();
const std::vector<const Bfloat16HeadKernels*>& available_bfloat16_head_kernels();

}  // namespace dtrain::cpu
