// Memory of tensors that is kept for the next tensor.
#include "trainer/kernels/cpu/block_cache.h"

#include <cstdint>
#include <thread>
#include <vector>

#include <malloc.h>

#include <gtest/gtest.h>

#include <ATen/ops/empty.h>

namespace dtrain {
namespace {

constexpr std::int64_t kFloats = std::int64_t{1} << 20;  // 4 MiB

TEST(BlockCache, GivesTheBlockFreedLastToTheNextTensor) {
  cpu::use_block_cache();
  void* first = nullptr;
  {
    const at::Tensor x = at::empty({kFloats});
    first = x.data_ptr();
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(first) % (std::uintptr_t{2} << 20), 0U) << "no huge page can hold it";
  }
  const at::Tensor same = at::empty({kFloats});
  EXPECT_EQ(same.data_ptr(), first);
  const at::Tensor other = at::empty({kFloats});
  EXPECT_NE(other.data_ptr(), first) << "a block in use was given away";
}

TEST(BlockCache, SlightlySmallerTensorsReuseABlockAndMuchSmallerOnesDoNot) {
  cpu::use_block_cache();
  void* first = nullptr;
  {
    const at::Tensor x = at::empty({8 * kFloats});
    first = x.data_ptr();
  }
  {
    const at::Tensor smaller = at::empty({7 * kFloats});
    EXPECT_EQ(smaller.data_ptr(), first);
  }
  const at::Tensor small = at::empty({2 * kFloats});
  EXPECT_NE(small.data_ptr(), first);
}

TEST(BlockCache, GivesBackWhatNoTensorHas) {
  cpu::use_block_cache();
  constexpr std::int64_t kMany = 64 * kFloats;
  const at::Tensor live = at::empty({kMany});
  { const at::Tensor freed = at::empty({kMany}); }
  const std::size_t before = ::mallinfo2().hblkhd;
  cpu::empty_block_cache();
  const std::size_t after = ::mallinfo2().hblkhd;
  EXPECT_GE(before, after + kMany * sizeof(float));
  EXPECT_GE(after, kMany * sizeof(float)) << "a block in use was given back";
}

// Blocks may be freed by another thread than the one that asked for them, and keep what is written to them.
TEST(BlockCache, ServesThreads) {
  cpu::use_block_cache();
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([t] {
      std::vector<at::Tensor> live;
      for (int i = 0; i < 200; ++i) {
        at::Tensor x = at::empty({20'000 + 5'000 * (i % 7)});
        x.fill_(static_cast<float>(1000 * t + i));
        live.push_back(x);
        if (live.size() > 5) {
          const auto expected = static_cast<float>(1000 * t + i - 5);
          EXPECT_EQ(live.front().min().item<float>(), expected);
          EXPECT_EQ(live.front().max().item<float>(), expected);
          live.erase(live.begin());
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace dtrain
