// BpeModel: merges the bytes of a word pair by pair, lowest rank first, leftmost first among equals (Sennrich et al.
// 2016, as the `tokenizers` library does it). Const and thread-safe.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "datasets/tokenizers/tokenizer_spec.h"

namespace dtrain {

class BpeModel {
 public:
  explicit BpeModel(const TokenizerSpec& spec);

  // Appends the ids of one word, given as raw bytes. Time n log n, memory about 40 bytes a byte of the word.
  void encode(std::string_view word, std::vector<std::int32_t>& ids) const;

 private:
  struct Pair {
    std::uint64_t key = kEmpty;  // left << 32 | right
    std::uint32_t rank = kNoRank;
    std::int32_t merged = -1;
  };
  static constexpr std::uint64_t kEmpty = ~0ULL;
  static constexpr std::uint32_t kNoRank = 0xFFFFFFFF;

  [[nodiscard]] const Pair& find(std::int32_t left, std::int32_t right) const;
  [[nodiscard]] std::size_t slot_of(std::uint64_t key) const;
  void merge_short(std::vector<std::int32_t>& ids, std::size_t begin) const;
  void merge_long(std::vector<std::int32_t>& ids, std::size_t begin) const;

  std::array<std::int32_t, 256> byte_ids_{};  // -1: the vocabulary lacks this byte
  std::optional<std::int32_t> unknown_id_;
  bool fuse_unknown_;
  std::vector<Pair> pairs_;  // open addressing
};

}  // namespace dtrain
