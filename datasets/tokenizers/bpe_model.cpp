#include "datasets/tokenizers/bpe_model.h"

#include <algorithm>
#include <queue>

#include "core/error.h"
#include "datasets/tokenizers/byte_level.h"
#include "datasets/tokenizers/unicode.h"

namespace dtrain {
namespace {

constexpr std::size_t kShortWord = 48;  // up to here a plain scan for the lowest rank beats a heap

std::uint64_t pair_key(std::int32_t left, std::int32_t right) {
  return (static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32) | static_cast<std::uint32_t>(right);
}

}  // namespace

BpeModel::BpeModel(const TokenizerSpec& spec) : unknown_id_(spec.unknown_id), fuse_unknown_(spec.fuse_unknown) {
  for (unsigned byte = 0; byte < 256; ++byte) {
    std::string character;
    unicode::append_utf8(character_of_byte(static_cast<std::uint8_t>(byte)), character);
    byte_ids_[byte] = spec.vocabulary.find(character).value_or(-1);
  }
  std::size_t slots = 64;
  while (slots < spec.merges.size() * 3) slots *= 2;
  pairs_.resize(slots);
  for (std::size_t rank = 0; rank < spec.merges.size(); ++rank) {
    const Merge& merge = spec.merges[rank];
    const std::uint64_t key = pair_key(merge.left, merge.right);
    pairs_[slot_of(key)] = {key, static_cast<std::uint32_t>(rank), merge.merged};  // a repeated pair: the last counts
  }
}

std::size_t BpeModel::slot_of(std::uint64_t key) const {
  const std::size_t mask = pairs_.size() - 1;
  std::size_t slot = ((key * 0x9E3779B97F4A7C15ULL) >> 32) & mask;
  while (pairs_[slot].key != kEmpty && pairs_[slot].key != key) slot = (slot + 1) & mask;
  return slot;
}

const BpeModel::Pair& BpeModel::find(std::int32_t left, std::int32_t right) const {
  return pairs_[slot_of(pair_key(left, right))];
}

void BpeModel::encode(std::string_view word, std::vector<std::int32_t>& ids) const {
  const std::size_t begin = ids.size();
  bool after_unknown = false;
  for (const char byte : word) {
    const std::int32_t id = byte_ids_[static_cast<unsigned char>(byte)];
    if (id >= 0) {
      ids.push_back(id);
      after_unknown = false;
    } else if (unknown_id_) {  // without an unknown token the library drops the byte
      if (!(fuse_unknown_ && after_unknown)) ids.push_back(*unknown_id_);
      after_unknown = true;
    }
  }
  const std::size_t size = ids.size() - begin;
  if (size < 2) return;
  if (size <= kShortWord) {
    merge_short(ids, begin);
  } else {
    merge_long(ids, begin);
  }
}

void BpeModel::merge_short(std::vector<std::int32_t>& ids, std::size_t begin) const {
  std::array<const Pair*, kShortWord> pairs;  // pairs[i] joins symbols i and i + 1
  std::int32_t* const symbols = ids.data() + begin;
  std::size_t size = ids.size() - begin;
  for (std::size_t i = 0; i + 1 < size; ++i) pairs[i] = &find(symbols[i], symbols[i + 1]);
  while (size > 1) {
    std::size_t best = 0;
    for (std::size_t i = 1; i + 1 < size; ++i) {
      if (pairs[i]->rank < pairs[best]->rank) best = i;
    }
    if (pairs[best]->rank == kNoRank) break;
    symbols[best] = pairs[best]->merged;
    for (std::size_t i = best + 1; i + 1 < size; ++i) {
      symbols[i] = symbols[i + 1];
      pairs[i - 1] = pairs[i];
    }
    --size;
    if (best > 0) pairs[best - 1] = &find(symbols[best - 1], symbols[best]);
    if (best + 1 < size) pairs[best] = &find(symbols[best], symbols[best + 1]);
  }
  ids.resize(begin + size);
}

void BpeModel::merge_long(std::vector<std::int32_t>& ids, std::size_t begin) const {
  const std::size_t size = ids.size() - begin;
  // Positions are 32-bit: half the memory, and a longer word is no text.
  if (size >= kNoRank) throw data_error("a text holds one word of more than 4 GiB", "split the text into records");
  constexpr std::uint32_t kEnd = 0xFFFFFFFF;
  constexpr std::int32_t kGone = -1;
  std::int32_t* const symbols = ids.data() + begin;
  std::vector<std::uint32_t> next(size);
  std::vector<std::uint32_t> previous(size);
  std::vector<std::uint64_t> heap;  // rank << 32 | position of the left symbol
  const auto push_pair = [&](std::uint32_t left, std::uint32_t right, auto&& push) {
    const Pair& pair = find(symbols[left], symbols[right]);
    if (pair.rank != kNoRank) push((static_cast<std::uint64_t>(pair.rank) << 32) | left);
  };
  for (std::uint32_t i = 0; i < size; ++i) {
    next[i] = i + 1 < size ? i + 1 : kEnd;
    previous[i] = i == 0 ? kEnd : i - 1;
    if (i + 1 < size) push_pair(i, i + 1, [&](std::uint64_t entry) { heap.push_back(entry); });
  }
  std::priority_queue<std::uint64_t, std::vector<std::uint64_t>, std::greater<>> queue(std::greater<>{},
                                                                                       std::move(heap));
  const auto push = [&queue](std::uint64_t entry) { queue.push(entry); };
  while (!queue.empty()) {
    const auto rank = static_cast<std::uint32_t>(queue.top() >> 32);
    const auto left = static_cast<std::uint32_t>(queue.top());
    queue.pop();
    const std::uint32_t right = next[left];
    if (symbols[left] == kGone || right == kEnd) continue;
    const Pair& pair = find(symbols[left], symbols[right]);
    if (pair.rank != rank) continue;  // one of the two has been merged since
    symbols[left] = pair.merged;
    symbols[right] = kGone;
    next[left] = next[right];
    if (next[left] != kEnd) {
      previous[next[left]] = left;
      push_pair(left, next[left], push);
    }
    if (previous[left] != kEnd) push_pair(previous[left], left, push);
  }
  ids.erase(std::remove(ids.begin() + static_cast<std::ptrdiff_t>(begin), ids.end(), kGone), ids.end());
}

}  // namespace dtrain
