// WordPieceModel: cuts a word greedily into the longest pieces of the vocabulary, or gives the unknown token for all of
// it. Const and thread-safe.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "datasets/tokenizers/tokenizer_spec.h"
#include "datasets/tokenizers/trie.h"

namespace dtrain {

class WordPieceModel {
 public:
  explicit WordPieceModel(const TokenizerSpec& spec);

  // Appends the ids of one word (valid UTF-8, not empty).
  void encode(std::string_view word, std::vector<std::int32_t>& ids) const;

 private:
  Trie trie_;
  Trie::Node continuation_;  // where pieces inside a word start; kNone when the vocabulary has none
  std::int32_t unknown_id_;
  std::size_t max_characters_;
};

}  // namespace dtrain
