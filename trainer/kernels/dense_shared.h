// What linear layers in float32 (dense.cpp) and in bfloat16 (dense_bfloat16.cpp) share.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include "trainer/kernels/cpu/dense.h"
#include "trainer/kernels/cpu/parallel.h"
#include "trainer/kernels/dense.h"

namespace dtrain {

// Preparing the weights pays from here on.
constexpr std::int64_t kFewestRows = 48;

struct DenseTensors {
  explicit DenseTensors(const std::vector<DensePart>& parts);
  std::vector<at::Tensor> weights;
  std::vector<at::Tensor> biases;
};

// Sums over rows in an order that does not depend on the number of threads, [columns] float32: calls add(row, sums) for
// every row, where sums are the `columns` sums of the piece the row is in.
template <class Add>
at::Tensor sum_rows(const cpu::DenseKernels& kernels, std::int64_t rows, std::int64_t columns, const Add& add) {
  constexpr std::int64_t kSummedRows = 128;
  const std::int64_t pieces = std::max<std::int64_t>(1, (rows + kSummedRows - 1) / kSummedRows);
  at::Tensor partial = at::zeros({pieces, columns}, at::kFloat);
  auto* sums = partial.mutable_data_ptr<float>();
  cpu::parallel_tasks(pieces, [&](std::int64_t piece) {
    const std::int64_t end = std::min(rows, (piece + 1) * kSummedRows);
    for (std::int64_t row = piece * kSummedRows; row < end; ++row) add(row, sums + piece * columns);
  });
  for (std::int64_t piece = 1; piece < pieces; ++piece) kernels.add_to(sums, sums + piece * columns, columns);
  return partial.select(0, 0);
}

// What the backward pass of a function of (x, weights, biases) returns for these once the gradient of the product, `dy`
// [rows, sum of outs], and `dbias`, the sum of its rows, are there. `dx` is asked for x's gradient if that is wanted.
// The weights' gradients are float32.
[[nodiscard]] torch::autograd::variable_list product_gradients(
    torch::autograd::AutogradContext* ctx, const at::Tensor& x, const std::vector<at::Tensor>& weights,
    const at::Tensor& dy, const at::Tensor& dbias, WeightOrder order, const std::function<at::Tensor()>& dx);

}  // namespace dtrain
