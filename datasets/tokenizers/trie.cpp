#include "datasets/tokenizers/trie.h"

namespace dtrain {
namespace {

std::uint64_t edge_key(Trie::Node node, char byte) {
  return (static_cast<std::uint64_t>(node) << 8) | static_cast<unsigned char>(byte);
}

}  // namespace

Trie::Trie() : edges_(64), values_(1, -1) {}

std::size_t Trie::slot_of(std::uint64_t key) const {
  const std::size_t mask = edges_.size() - 1;
  std::size_t slot = ((key * 0x9E3779B97F4A7C15ULL) >> 32) & mask;
  while (edges_[slot].key != kEmpty && edges_[slot].key != key) slot = (slot + 1) & mask;
  return slot;
}

void Trie::grow() {
  std::vector<Edge> old(edges_.size() * 2);
  old.swap(edges_);
  for (const Edge& edge : old) {
    if (edge.key != kEmpty) edges_[slot_of(edge.key)] = edge;
  }
}

Trie::Node Trie::child(Node node, char byte) const { return edges_[slot_of(edge_key(node, byte))].child; }

bool Trie::insert(std::string_view bytes, std::int32_t value) {
  Node node = kRoot;
  for (const char byte : bytes) {
    Node next = child(node, byte);
    if (next == kNone) {
      if (values_.size() * 2 > edges_.size()) grow();
      next = static_cast<Node>(values_.size());
      edges_[slot_of(edge_key(node, byte))] = {edge_key(node, byte), next};
      values_.push_back(-1);
    }
    node = next;
  }
  if (values_[node] >= 0) return false;
  values_[node] = value;
  return true;
}

Trie::Node Trie::walk(Node from, std::string_view bytes) const {
  for (const char byte : bytes) {
    if (from == kNone) break;
    from = child(from, byte);
  }
  return from;
}

Trie::Match Trie::longest(Node from, std::string_view text) const {
  Match best;
  for (std::size_t i = 0; i < text.size() && from != kNone; ++i) {
    from = child(from, text[i]);
    if (from != kNone && values_[from] >= 0) best = {i + 1, values_[from]};
  }
  return best;
}

}  // namespace dtrain
