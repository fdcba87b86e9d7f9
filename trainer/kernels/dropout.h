// Counter-based dropout: the mask is a pure function of (seed, step, example, site, row, column), so it does not depend
// on padding, on how a step is split over ranks and micro-batches, on threads, on the instruction set or on the device.
//
// One Philox4x32-10 block (core/random.h) gives the mask of eight neighbouring columns: its key is RandomKey::philox(),
// its counter (column / 8, row, slot of the example, site), and element e of the block uses bits 16 (e % 2) to 16 (e %
// 2) + 15 of word e / 2. An element is dropped when these 16 bits, as a number, are below round(65536 p). The
// probability is thus rounded to a multiple of 1/65536 and the scale of what is kept, 65536 / (65536 - round(65536 p)),
// belongs to the rounded one: the expectation is exact. Nothing is stored for the backward pass; the mask is drawn
// again. Values that are dropped become 0 even when they are not finite.
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

#include "core/random.h"
#include "trainer/kernels/token_layout.h"

namespace dtrain {

// What all dropout of one forward pass shares. Default-constructed: dropout is off (evaluation).
struct DropoutKeys {
  RandomKey key;
  at::Tensor slots;  // [batch] int64 on the device of the activations: place of each example in the step's global batch
  TokenLayoutPtr layout = nullptr;  // what the rows of [rows, columns] tensors are; without it they are the examples

  [[nodiscard]] bool active() const { return slots.defined(); }
};

// The number of 16-bit values that mean "dropped", 0 to 65536.
[[nodiscard]] std::uint32_t dropout_threshold(double probability);

// `x` is [batch, rows, columns], or [batch, groups, rows, columns] (then a row's number is group * 2^20 + row), or
// [batch, columns], or, with a layout, [rows, columns] (then a row's number is its token's position). float32, bfloat16
// or float16; result and gradient have the type of `x`. Differentiable. Returns `x` itself when nothing can be dropped:
// keys not active or a probability that rounds to 0.
[[nodiscard]] at::Tensor counter_dropout(const at::Tensor& x, double probability, const DropoutKeys& keys,
                                         std::uint32_t site);

// residual + counter_dropout(x), in one pass and with one rounding; the result has the type of `residual`, which has
// the shape of `x`. Differentiable in both.
[[nodiscard]] at::Tensor counter_dropout_add(const at::Tensor& x, const at::Tensor& residual, double probability,
                                             const DropoutKeys& keys, std::uint32_t site);

// The extents and draws of one call, as the device code gets them.
struct DropoutSpec {
  std::int64_t batch = 0;
  std::int64_t groups = 0;
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  const std::int64_t* slots = nullptr;  // on the device of the data
  PhiloxKey key{};
  std::uint32_t site = 0;
  std::uint32_t threshold = 0;  // 1 to 65535
  float scale = 1;
};

// How a GPU backend, which is a library of its own, adds itself: output = (residual +) masked input, all contiguous, on
// the current stream of their device. `residual` is undefined when there is none; otherwise it has the type of
// `output`.
using DeviceDropout = void (*)(const at::Tensor& input, const at::Tensor& residual, const at::Tensor& output,
                               const DropoutSpec& spec);
void set_cuda_dropout(DeviceDropout function);

}  // namespace dtrain
