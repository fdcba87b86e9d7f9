// Trie: a set of byte strings with a number each, for longest-match searches. Filled once, then const and thread-safe.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace dtrain {

class Trie {
 public:
  using Node = std::uint32_t;
  static constexpr Node kRoot = 0;
  static constexpr Node kNone = 0xFFFFFFFF;

  struct Match {
    std::size_t size = 0;  // bytes; 0: nothing matched
    std::int32_t value = -1;
  };

  Trie();
  // `value` >= 0. False when the string is there already.
  bool insert(std::string_view bytes, std::int32_t value);

  [[nodiscard]] bool empty() const { return values_.size() == 1; }
  // The node reached from `from` along `bytes`, or kNone.
  [[nodiscard]] Node walk(Node from, std::string_view bytes) const;
  // The longest non-empty prefix of `text` that leads from `from` to a string of the set.
  [[nodiscard]] Match longest(Node from, std::string_view text) const;

 private:
  struct Edge {
    std::uint64_t key = kEmpty;  // parent * 256 + byte
    Node child = kNone;
  };
  static constexpr std::uint64_t kEmpty = ~0ULL;
  [[nodiscard]] std::size_t slot_of(std::uint64_t key) const;
  [[nodiscard]] Node child(Node node, char byte) const;
  void grow();

  std::vector<Edge> edges_;           // open addressing
  std::vector<std::int32_t> values_;  // by node; -1: no string ends here
};

}  // namespace dtrain
