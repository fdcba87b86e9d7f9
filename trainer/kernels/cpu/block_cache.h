// BlockCache: LibTorch's CPU memory for large tensors, kept for the next step instead of going back to the system.
//
// glibc returns blocks of activations to the kernel as soon as they are freed, and every step then pays for the page
// faults and the zeroing of several gigabytes anew. The sizes of a step repeat, up to the number of its tokens, so
// freed blocks are kept by size class and handed out again, most recently freed (still in the cache) first. Blocks of 2
// MiB and more are on huge pages where the kernel grants them. Thread-safe.
#pragma once

namespace dtrain::cpu {

// Installs the cache for all tensors made from now on. Idempotent.
void use_block_cache();

// Gives the blocks that no tensor has back to the system.
void empty_block_cache();

}  // namespace dtrain::cpu
