#include "datasets/tokenizers/word_cache.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <memory>

namespace dtrain {

WordCache::WordCache() : slots_(kSlotMask + 1) { arena_.reserve(kArenaInts / 16); }

bool WordCache::holds(const Slot& slot, std::string_view word) const {
  return std::memcmp(arena_.data() + slot.offset + slot.ids, word.data(), word.size()) == 0;
}

void WordCache::clear() {
  std::fill(slots_.begin(), slots_.end(), Slot{});
  arena_.clear();
}

void WordCache::insert(std::string_view word, std::uint64_t hash, std::span<const std::int32_t> ids) {
  if (word.empty() || word.size() > kMaxWordBytes || ids.size() > 4 * kMaxWordBytes) return;
  const std::size_t word_ints = (word.size() + sizeof(std::int32_t) - 1) / sizeof(std::int32_t);
  if (arena_.size() + ids.size() + word_ints > kArenaInts) clear();
  const std::size_t base = hash & kSlotMask;
  std::size_t slot = base ^ (hash >> 62);  // the victim when none is free
  for (std::size_t probe = 0; probe < kWays; ++probe) {
    if (slots_[base ^ probe].bytes == 0) {
      slot = base ^ probe;
      break;
    }
  }
  slots_[slot] = {hash, static_cast<std::uint32_t>(arena_.size()), static_cast<std::uint16_t>(word.size()),
                  static_cast<std::uint16_t>(ids.size())};
  arena_.insert(arena_.end(), ids.begin(), ids.end());
  const std::size_t at = arena_.size();
  arena_.resize(at + word_ints);
  std::memcpy(arena_.data() + at, word.data(), word.size());
}

WordCache& WordCache::of_thread(std::uint64_t serial) {
  struct Entry {
    std::uint64_t serial = 0;
    std::unique_ptr<WordCache> cache;
  };
  thread_local std::array<Entry, 4> entries;
  thread_local std::size_t next = 0;
  for (Entry& entry : entries) {
    if (entry.serial == serial) return *entry.cache;
  }
  Entry& entry = entries[next];
  next = (next + 1) % entries.size();
  entry = {serial, std::make_unique<WordCache>()};
  return *entry.cache;
}

std::uint64_t WordCache::next_serial() {
  static std::atomic<std::uint64_t> last{0};
  return ++last;
}

}  // namespace dtrain
