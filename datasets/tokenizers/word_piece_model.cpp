#include "datasets/tokenizers/word_piece_model.h"

#include "datasets/tokenizers/unicode.h"

namespace dtrain {

WordPieceModel::WordPieceModel(const TokenizerSpec& spec)
    : unknown_id_(spec.unknown_id.value()), max_characters_(spec.max_word_characters) {
  for (std::int32_t id = 0; id < spec.vocabulary.end_id(); ++id) {
    if (const auto token = spec.vocabulary.token(id); token && !token->empty()) trie_.insert(*token, id);
  }
  continuation_ = trie_.walk(Trie::kRoot, spec.continuation_prefix);
}

void WordPieceModel::encode(std::string_view word, std::vector<std::int32_t>& ids) const {
  const std::size_t begin = ids.size();
  if (word.size() > max_characters_ && unicode::count_code_points(word) > max_characters_) {
    ids.push_back(unknown_id_);
    return;
  }
  Trie::Node from = Trie::kRoot;
  while (!word.empty()) {
    const Trie::Match match = trie_.longest(from, word);
    if (match.size == 0) {
      ids.resize(begin);
      ids.push_back(unknown_id_);
      return;
    }
    ids.push_back(match.value);
    word.remove_prefix(match.size);
    from = continuation_;
  }
}

}  // namespace dtrain
