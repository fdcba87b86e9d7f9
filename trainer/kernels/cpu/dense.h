// Products of activations with weights on the CPU, and what is done to their rows while they are in the cache: one
// table of functions per instruction set. Plain C++ without LibTorch, for the same reason as rows.h.
//
// The product is the one of Goto and van de Geijn (Anatomy of High-Performance Matrix Multiplication, 2008) for a tall
// left matrix: the weights are packed into panels that fit the first-level cache, the activations are read in place.
// The depth is summed in the same order whatever the number of rows and threads: a row's bits depend on nothing else.
#pragma once

#include <cstdint>
#include <vector>

#include "trainer/kernels/cpu/rows.h"

namespace dtrain::cpu {

// Element (i, j) is data[i * row + j * column].
struct Matrix {
  const float* data = nullptr;
  std::int64_t row = 0;
  std::int64_t column = 0;
};

enum class Gelu { kErf, kTanh };

struct DenseKernels {
  const char* name;
  std::int64_t panel;      // columns of a packed panel
  std::int64_t tile_rows;  // rows are best given in multiples of it

  // `panel` columns of `b` [depth, panel] as [depth][panel].
  void (*pack)(const Matrix& b, std::int64_t depth, float* to);
  // c[rows, columns] = a[rows, depth] times packed columns, + bias[column] unless that is null. `packed` is
  // [columns / panel][depth][panel].
  void (*multiply)(ConstRows a, std::int64_t rows, std::int64_t depth, const float* packed, std::int64_t columns,
                   const float* bias, Rows c);

  // y = gelu(x): x Phi(x), Phi by formula 7.1.26 of Abramowitz and Stegun (|error| < 1.5e-7, as LibTorch's), or the
  // form with tanh.
  void (*gelu)(Gelu form, const float* x, float* y, std::int64_t count);
  // dx = dy gelu'(x), and sums[i] += dx[i].
  void (*gelu_backward)(Gelu form, const float* x, const float* dy, float* dx, float* sums, std::int64_t count);
  // sums[i] += x[i]
  void (*add_to)(float* sums, const float* x, std::int64_t count);
};

const DenseKernels* avx2_dense_kernels();  // nullptr when the program was built for another architecture
const DenseKernels* avx512_dense_kernels();
// The fastest that this machine can run; nullptr: none.
const DenseKernels* dense_kernels();
// Every one that this machine can run, slowest first, for tests and measurements.
const std::vector<const DenseKernels*>& available_dense_kernels();

}  // namespace dtrain::cpu
