// WordCache: the ids of words met lately, bounded in size. One a thread and tokenizer; not thread-safe itself.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace dtrain {

class WordCache {
 public:
  static constexpr std::size_t kMaxWordBytes = 256;  // longer words hardly repeat

  WordCache();
  // True and the ids appended, or false.
  bool append(std::string_view word, std::uint64_t hash, std::vector<std::int32_t>& ids) const {
    const std::size_t base = hash & kSlotMask;
    for (std::size_t probe = 0; probe < kWays; ++probe) {
      const Slot& slot = slots_[base ^ probe];
      if (slot.hash == hash && slot.bytes == word.size() && holds(slot, word)) {
        const std::int32_t* first = arena_.data() + slot.offset;
        ids.insert(ids.end(), first, first + slot.ids);
        return true;
      }
    }
    return false;
  }
  // Replaces an older word when the set of slots is full, and forgets everything when the arena is.
  void insert(std::string_view word, std::uint64_t hash, std::span<const std::int32_t> ids);

  // The calling thread's cache of the tokenizer with this serial number (see next_serial). A thread keeps four.
  static WordCache& of_thread(std::uint64_t serial);
  // A number no other tokenizer of this process has.
  static std::uint64_t next_serial();

 private:
  static constexpr std::size_t kWays = 4;
  static constexpr std::size_t kSlotMask = (1U << 16) - 1;
  static constexpr std::size_t kArenaInts = 1U << 20;  // 4 MiB

  struct Slot {
    std::uint64_t hash = 0;
    std::uint32_t offset = 0;  // into arena_: the ids, then the bytes of the word
    std::uint16_t bytes = 0;   // 0: free
    std::uint16_t ids = 0;
  };
  [[nodiscard]] bool holds(const Slot& slot, std::string_view word) const;
  void clear();

  std::vector<Slot> slots_;
  std::vector<std::int32_t> arena_;
};

}  // namespace dtrain
