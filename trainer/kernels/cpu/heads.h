// Attention of one head of one example on the CPU: one table of functions per instruction set. Scores exist for a few
// queries at a time only, in the cache; the backward pass computes them again. Plain C++ without LibTorch, for the same
// reason as rows.h.
#pragma once

#include <cstdint>
#include <vector>

#include "trainer/kernels/cpu/rows.h"

namespace dtrain::cpu {

struct HeadInputs {
  ConstRows q;
  ConstRows k;
  ConstRows v;
  std::int64_t queries = 0;
  std::int64_t keys = 0;
  std::int64_t head_size = 0;  // a multiple of 16
  float scale = 1;
  // With `causal` query i sees keys up to keys - queries + i.
  bool causal = false;
  const float* holes = nullptr;  // [keys], added to the scores; or null
  // Dropout of the probabilities: `drop` holds all but the row, which is first_row + i for query i; columns begin with
  // first_key.
  bool drops = false;
  RowDraw drop{};
  std::uint32_t first_row = 0;
  std::int64_t first_key = 0;
};

// out[i] = sum over j of dropped(softmax(scale q[i] k[j] + holes[j])) v[j]; `moments` [queries, 2] receives the largest
// score of each query and 1 / sum of exponentials.
using HeadForward = void (*)(const HeadInputs& inputs, Rows out, float* moments, float* scratch);

struct HeadGradients {
  ConstRows out;   // the result of forward,
  ConstRows dout;  // its gradient,
  const float* moments = nullptr;
  Rows dq;  // and what backward writes
  Rows dk;
  Rows dv;
};
using HeadBackward = void (*)(const HeadInputs& inputs, const HeadGradients& gradients, float* scratch);

struct HeadKernels {
  const char* name;
  HeadForward forward;
  HeadBackward backward;
};

// Queries worked on together: their scores stay in the first-level cache.
constexpr std::int64_t kHeadQueries = 24;

// Floats of scratch for either pass.
std::int64_t head_scratch(std::int64_t keys, std::int64_t head_size);

const HeadKernels* avx2_head_kernels();  // nullptr when the program was built for another architecture
const HeadKernels* avx512_head_kernels();
// The fastest that this machine can run; nullptr: none.
const HeadKernels* head_kernels();
// Every one that this machine can run, slowest first, for tests and measurements.
const std::vector<const HeadKernels*>& available_head_kernels();

}  // namespace dtrain::cpu
