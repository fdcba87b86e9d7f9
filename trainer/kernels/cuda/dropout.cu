// Counter-based dropout on the GPU: the mask of trainer/kernels/dropout.h, bit for bit that of the CPU kernels.
// Memory-bound: one thread draws the Philox block of eight neighbouring columns and moves them.
#include <cstdint>

#include <ATen/core/Tensor.h>
#include <c10/cuda/CUDAStream.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>
#include <cuda_runtime.h>

#include "trainer/kernels/cuda/dropout.h"

namespace dtrain {
namespace {

constexpr int kThreads = 256;
constexpr int kColumns = 8;  // one Philox block

// Ten rounds as in core/random.h, which the device cannot call: constexpr functions of the host need a flag of nvcc.
__device__ void philox(std::uint32_t counter[4], std::uint32_t key0, std::uint32_t key1) {
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const std::uint32_t high0 = __umulhi(0xD2511F53U, counter[0]);
    const std::uint32_t low0 = 0xD2511F53U * counter[0];
    const std::uint32_t high1 = __umulhi(0xCD9E8D57U, counter[2]);
    const std::uint32_t low1 = 0xCD9E8D57U * counter[2];
    counter[0] = high1 ^ counter[1] ^ key0;
    counter[1] = low1;
    counter[2] = high0 ^ counter[3] ^ key1;
    counter[3] = low0;
    key0 += 0x9E3779B9U;
    key1 += 0xBB67AE85U;
  }
}

template <class In, class Out>
__global__ void dropout_kernel(const In* input, const Out* residual, Out* output, DropoutSpec spec,
                               std::int64_t blocks_per_row, std::int64_t blocks) {
  for (std::int64_t i = blockIdx.x * static_cast<std::int64_t>(blockDim.x) + threadIdx.x; i < blocks;
       i += static_cast<std::int64_t>(gridDim.x) * blockDim.x) {
    const std::int64_t row = i / blocks_per_row;
    const std::int64_t block = i % blocks_per_row;
    const std::int64_t group = row / spec.rows;
    std::uint32_t words[4] = {static_cast<std::uint32_t>(block),
                              static_cast<std::uint32_t>(((group % spec.groups) << 20) + row % spec.rows),
                              static_cast<std::uint32_t>(spec.slots[group / spec.groups]), spec.site};
    philox(words, spec.key[0], spec.key[1]);
    const std::int64_t first = block * kColumns;
    const std::int64_t count = min(static_cast<std::int64_t>(kColumns), spec.columns - first);
    const std::int64_t offset = row * spec.columns + first;
    for (std::int64_t column = 0; column < count; ++column) {
      const std::uint32_t bits = (words[column / 2] >> (16 * (column % 2))) & 0xFFFFU;
      const float value = bits >= spec.threshold ? static_cast<float>(input[offset + column]) * spec.scale : 0.0F;
      const float base = residual == nullptr ? 0.0F : static_cast<float>(residual[offset + column]);
      output[offset + column] = static_cast<Out>(base + value);
    }
  }
}

template <class In, class Out>
void launch(const at::Tensor& input, const at::Tensor& residual, const at::Tensor& output, const DropoutSpec& spec) {
  const std::int64_t rows = spec.batch * spec.groups * spec.rows;
  const std::int64_t blocks_per_row = (spec.columns + kColumns - 1) / kColumns;
  const std::int64_t blocks = rows * blocks_per_row;
  if (blocks == 0) return;
  const auto grid = static_cast<unsigned>(std::min<std::int64_t>((blocks + kThreads - 1) / kThreads, 1 << 16));
  dropout_kernel<<<grid, kThreads, 0, c10::cuda::getCurrentCUDAStream()>>>(
      static_cast<const In*>(input.const_data_ptr()),
      residual.defined() ? static_cast<const Out*>(residual.const_data_ptr()) : nullptr,
      static_cast<Out*>(output.mutable_data_ptr()), spec, blocks_per_row, blocks);
  TORCH_CHECK(cudaGetLastError() == cudaSuccess, "the dropout kernel could not be started");
}

template <class In>
void launch_for_output(const at::Tensor& input, const at::Tensor& residual, const at::Tensor& output,
                       const DropoutSpec& spec) {
  switch (output.scalar_type()) {
    case at::kFloat:
      return launch<In, float>(input, residual, output, spec);
    case at::kBFloat16:
      return launch<In, c10::BFloat16>(input, residual, output, spec);
    case at::kHalf:
      return launch<In, c10::Half>(input, residual, output, spec);
    default:
      TORCH_CHECK(false, "dropout of type ", output.scalar_type());
  }
}

}  // namespace

void dropout_on_cuda(const at::Tensor& input, const at::Tensor& residual, const at::Tensor& output,
                     const DropoutSpec& spec) {
  switch (input.scalar_type()) {
    case at::kFloat:
      return launch_for_output<float>(input, residual, output, spec);
    case at::kBFloat16:
      return launch_for_output<c10::BFloat16>(input, residual, output, spec);
    case at::kHalf:
      return launch_for_output<c10::Half>(input, residual, output, spec);
    default:
      TORCH_CHECK(false, "dropout of type ", input.scalar_type());
  }
}

}  // namespace dtrain
