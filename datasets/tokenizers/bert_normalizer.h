// BERT's text clean-up before words are cut, as the `tokenizers` library's BertNormalizer and BertPreTokenizer do it:
// cleaning, spaces around ideographs, NFD without marks, lower case, in this order. Const and thread-safe.
#pragma once

#include <array>
#include <string>
#include <string_view>

#include "datasets/tokenizers/tokenizer_spec.h"

namespace dtrain {

class BertNormalizer {
 public:
  explicit BertNormalizer(const BertNormalizerOptions& options);

  // Appends the normalised form of `text` (valid UTF-8).
  void normalize(std::string_view text, std::string& out) const;

 private:
  // The steps before and after canonical ordering, for one code point.
  void decompose(char32_t code_point, std::u32string& out) const;
  void finish(char32_t code_point, std::u32string& out) const;
  void normalize_in_order(std::string_view text, std::string& out) const;

  BertNormalizerOptions options_;
  std::array<char, 128> ascii_{};  // what a character becomes; kRemoved: nothing
};

// Bytes of the first word of `text` (not empty, not starting with white space): one punctuation character, or
// everything up to the next white space or punctuation. 0 when `text` starts with white space, whose bytes then go to
// `*white`.
[[nodiscard]] std::size_t next_bert_word(std::string_view text, std::size_t* white);

}  // namespace dtrain
