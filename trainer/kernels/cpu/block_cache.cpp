#include "trainer/kernels/cpu/block_cache.h"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <mutex>
#include <new>
#include <unordered_map>

#include <sys/mman.h>

#if __has_include(<sanitizer/asan_interface.h>)
#include <sanitizer/asan_interface.h>  // its macros do nothing without AddressSanitizer
#else
#define ASAN_POISON_MEMORY_REGION(data, bytes)
#define ASAN_UNPOISON_MEMORY_REGION(data, bytes)
#endif

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/alloc_cpu.h>

namespace dtrain::cpu {
namespace {

constexpr std::size_t kSmallest = std::size_t{64} << 10;  // below, malloc is good enough
constexpr std::size_t kHugePage = std::size_t{2} << 20;
constexpr std::size_t kPage = 4096;
// Memory kept beyond the most that was ever live at once: sizes that no longer occur are given back then.
constexpr double kSlack = 1.1;
// A free block serves requests down to this fraction of it: the number of tokens differs from step to step.
constexpr double kLargest = 1.5;

// Eight classes per power of two: at most an eighth is wasted.
std::size_t class_of(std::size_t bytes) {
  const std::size_t step = std::bit_floor(bytes) / 8;
  return (bytes + step - 1) / step * step;
}

class BlockCache;
BlockCache& cache();

class BlockCache final : public c10::Allocator {
 public:
  c10::DataPtr allocate(std::size_t bytes) override {
    void* data = bytes < kSmallest ? c10::alloc_cpu(bytes) : take(class_of(bytes));
    return {data, data, &BlockCache::give_back, c10::Device(c10::DeviceType::CPU)};
  }

  // oneDNN asks for bare pointers.
  [[nodiscard]] c10::DeleterFnPtr raw_deleter() const override { return &BlockCache::give_back; }
  void copy_data(void* to, const void* from, std::size_t count) const override { default_copy_data(to, from, count); }

  void empty() {
    const std::lock_guard lock(mutex_);
    release_surplus(/*limit=*/0);
    peak_live_bytes_ = live_bytes_;
  }

 private:
  static void give_back(void* data) {
    if (data == nullptr) return;
    // Blocks of the cache begin on a page, and hardly anything else does.
    if (reinterpret_cast<std::uintptr_t>(data) % kPage != 0 || !cache().keep(data)) c10::free_cpu(data);
  }

  // False when the memory is none of the cache's blocks.
  bool keep(void* data) {
    const std::lock_guard lock(mutex_);
    const auto found = sizes_.find(data);
    if (found == sizes_.end()) return false;
    ASAN_POISON_MEMORY_REGION(data, found->second);
    free_.emplace(found->second, data);
    live_bytes_ -= static_cast<std::int64_t>(found->second);
    cached_bytes_ += static_cast<std::int64_t>(found->second);
    return true;
  }

  void* take(std::size_t bytes) {
    const auto size = static_cast<std::int64_t>(bytes);
    {
      const std::lock_guard lock(mutex_);
      const auto fits = free_.lower_bound(bytes);
      if (fits != free_.end() && static_cast<double>(fits->first) <= kLargest * static_cast<double>(bytes)) {
        // Equal keys are in order of insertion: the last one is the one freed last.
        const auto last = std::prev(free_.upper_bound(fits->first));
        void* data = last->second;
        cached_bytes_ -= static_cast<std::int64_t>(last->first);
        add_live(static_cast<std::int64_t>(last->first));
        free_.erase(last);
        ASAN_UNPOISON_MEMORY_REGION(data, bytes);
        return data;
      }
      add_live(size);
      release_surplus(static_cast<std::int64_t>(kSlack * static_cast<double>(peak_live_bytes_)));
    }
    const std::size_t alignment = bytes >= kHugePage ? kHugePage : kPage;
    void* data = nullptr;
    if (::posix_memalign(&data, alignment, bytes) != 0) {
      {
        const std::lock_guard lock(mutex_);
        release_surplus(/*limit=*/0);
      }
      if (::posix_memalign(&data, alignment, bytes) != 0) {
        const std::lock_guard lock(mutex_);
        live_bytes_ -= size;
        throw std::bad_alloc();
      }
    }
    if (bytes >= kHugePage) ::madvise(data, bytes, MADV_HUGEPAGE);  // a wish: it costs nothing when refused
    const std::lock_guard lock(mutex_);
    sizes_[data] = bytes;
    return data;
  }

  void add_live(std::int64_t bytes) {
    live_bytes_ += bytes;
    peak_live_bytes_ = std::max(peak_live_bytes_, live_bytes_);
  }

  // Gives free blocks back, the largest first, until no more than `limit` bytes are held, live ones included. The
  // caller holds the lock.
  void release_surplus(std::int64_t limit) {
    while (!free_.empty() && live_bytes_ + cached_bytes_ > limit) {
      const auto largest = std::prev(free_.end());
      cached_bytes_ -= static_cast<std::int64_t>(largest->first);
      sizes_.erase(largest->second);
      std::free(largest->second);
      free_.erase(largest);
    }
  }

  std::mutex mutex_;                              // guards all that follows
  std::multimap<std::size_t, void*> free_;        // by size
  std::unordered_map<void*, std::size_t> sizes_;  // of all blocks, live and free
  std::int64_t live_bytes_ = 0;                   // in tensors
  std::int64_t cached_bytes_ = 0;                 // free, kept
  std::int64_t peak_live_bytes_ = 0;
};

BlockCache& cache() {
  static auto* const instance = new BlockCache;  // tensors may outlive every static object
  return *instance;
}

}  // namespace

void use_block_cache() {
  constexpr std::uint8_t kAboveDefault = 100;
  c10::SetCPUAllocator(&cache(), kAboveDefault);
}

void empty_block_cache() { cache().empty(); }

}  // namespace dtrain::cpu
