// AddedTokenMatcher: finds added tokens inside text before it is cut into words, as the `tokenizers` library does:
// leftmost, then longest; single_word, lstrip and rstrip applied to each match. Const and thread-safe.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "datasets/tokenizers/tokenizer_spec.h"
#include "datasets/tokenizers/trie.h"

namespace dtrain {

class AddedTokenMatcher {
 public:
  // `patterns[i]` is what to search for to find `tokens[i]`. False when two patterns are equal or one is empty.
  [[nodiscard]] bool add(std::string_view pattern, const AddedToken& token, bool split_special_tokens);

  // Calls on_text(std::string_view) and on_token(std::int32_t id) in order of the text; empty texts are left out.
  template <class OnText, class OnToken>
  void scan(std::string_view text, OnText&& on_text, OnToken&& on_token) const {
    std::size_t done = 0;
    Found found;
    for (std::size_t from = 0; find(text, from, done, found);) {
      from = found.next;
      if (done < found.begin) on_text(text.substr(done, found.begin - done));
      on_token(found.id);
      done = found.end;
    }
    if (done < text.size()) on_text(text.substr(done));
  }

 private:
  struct Entry {
    AddedToken token;
    bool ignored;  // found, but left in the text
  };
  struct Found {
    std::size_t begin;
    std::size_t end;
    std::size_t next;  // where the search goes on
    std::int32_t id;
  };
  // The first match at or after `from`; `done` is the end of the one before.
  bool find(std::string_view text, std::size_t from, std::size_t done, Found& found) const;
  [[nodiscard]] std::size_t next_candidate(std::string_view text, std::size_t from) const;

  Trie trie_;
  std::vector<Entry> entries_;
  std::array<bool, 256> first_bytes_{};
  int first_byte_ = -1;  // the only first byte of all patterns, or -1
};

}  // namespace dtrain
