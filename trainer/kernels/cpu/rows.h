// The row kernels of the CPU: one table of functions per instruction set, all with the same bits as result. Plain C++
// without LibTorch, so that the files compiled for a newer instruction set cannot leak inline functions into the rest.
#pragma once

#include <cstdint>
#include <vector>

namespace dtrain::cpu {

// Rows of neighbouring numbers, `stride` numbers apart.
template <class Number>
struct RowsOf {
  Number* data = nullptr;
  std::int64_t stride = 0;
};
using Rows = RowsOf<float>;
using ConstRows = RowsOf<const float>;
using Bfloat16 = std::uint16_t;  // its bits: the upper half of a float's

enum class Type : int { kFloat = 0, kBfloat16 = 1, kHalf = 2 };

// One Philox key with the parts of the counter that a row shares, and what follows from the probability.
struct RowDraw {
  std::uint32_t key[2];
  std::uint32_t row;
  std::uint32_t slot;
  std::uint32_t site;
  std::uint32_t threshold;  // 1 to 65535
  float scale;
};

// output[i] = (residual ? residual[i] : 0) + (kept ? input[i] * scale : 0) for the columns [0, count).
using DropoutRow = void (*)(const RowDraw& draw, const void* input, const void* residual, void* output,
                            std::int64_t count);

// In place, for the columns [first, first + count) of a row of attention probabilities: probability := probability *
// scale if kept, else 0.
using AttentionRow = void (*)(const RowDraw& draw, float* probability, std::int64_t first, std::int64_t count);

// The backward pass of softmax and dropout at once, in place. In: probability p, gradient g of the dropped probability,
// delta = sum over columns of g * dropped(p). Out: probability := dropped(p), gradient := p * (dropped(g) - delta).
using AttentionGradRow = void (*)(const RowDraw& draw, float* probability, float* gradient, float delta,
                                  std::int64_t first, std::int64_t count);

// bfloat16 numbers as floats, and floats rounded to the nearest bfloat16 (ties to even; every NaN becomes the same
// one).
using Widen = void (*)(const void* from, float* to, std::int64_t count);
using Narrow = void (*)(const float* from, void* to, std::int64_t count);

struct RowKernels {
  const char* name;
  DropoutRow dropout[3][3];  // [Type of input][Type of residual and output]
  AttentionRow attention;
  AttentionGradRow attention_grad;
  Widen widen;
  Narrow narrow;
};

const RowKernels& generic_row_kernels();
const RowKernels* avx2_row_kernels();  // nullptr when the program was built for another architecture
const RowKernels* avx512_row_kernels();

// The fastest that this machine can run; chosen once.
const RowKernels& row_kernels();

// Every one that this machine can run, slowest first, for tests and measurements.
const std::vector<const RowKernels*>& available_row_kernels();

}  // namespace dtrain::cpu
