// What makes a step on the CPU fast and can be left out: for measurements, and to see whether one of them is to blame.
#pragma once

namespace dtrain {

enum class Shortcut {
  kAttention,   // "attention": kernels of our own in attention.cpp; else LibTorch's operations, head by head
  kDense,       // "dense": those of linear layers and GELU; else at::linear
  kReadTokens,  // "read_tokens": the last block of a classifier computes only what its head reads
  kBlockCache,  // "block_cache": memory of tensors is kept for the next step
};

// False for those that the environment variable DTRAIN_WITHOUT names, separated by commas; it is read once. Throws a
// usage error for a name that there is not.
[[nodiscard]] bool uses(Shortcut shortcut);

}  // namespace dtrain
