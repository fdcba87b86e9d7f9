// Sums over the rows of a tensor, in an order that does not depend on the number of threads.
#pragma once

#include <algorithm>
#include <cstdint>

#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros.h>

#include "trainer/kernels/cpu/dense.h"
#include "trainer/kernels/cpu/parallel.h"

namespace dtrain {

// [columns] float32: calls add(row, sums) for every row, where sums are the `columns` sums of the piece the row is in.
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

}  // namespace dtrain
