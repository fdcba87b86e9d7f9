#include "datasets/tokenizers/added_tokens.h"

#include <algorithm>
#include <cstring>

#include "datasets/tokenizers/unicode.h"

namespace dtrain {
namespace {

bool has_flag_before(std::string_view text, std::size_t end, unicode::Flag flag) {
  return end > 0 && (unicode::flags(unicode::decode_before(text.data() + end).code_point) & flag) != 0;
}
bool has_flag_at(std::string_view text, std::size_t begin, unicode::Flag flag) {
  return begin < text.size() && (unicode::flags(unicode::decode_at(text.data() + begin).code_point) & flag) != 0;
}

}  // namespace

bool AddedTokenMatcher::add(std::string_view pattern, const AddedToken& token, bool split_special_tokens) {
  if (pattern.empty() || !trie_.insert(pattern, static_cast<std::int32_t>(entries_.size()))) return false;
  const auto first = static_cast<unsigned char>(pattern[0]);
  if (entries_.empty()) {
    first_byte_ = first;
  } else if (first_byte_ != first) {
    first_byte_ = -1;
  }
  first_bytes_[first] = true;
  entries_.push_back({token, split_special_tokens && token.special});
  return true;
}

std::size_t AddedTokenMatcher::next_candidate(std::string_view text, std::size_t from) const {
  if (entries_.empty() || from >= text.size()) return text.size();
  if (first_byte_ >= 0) {
    const void* at = std::memchr(text.data() + from, first_byte_, text.size() - from);
    return at == nullptr ? text.size() : static_cast<std::size_t>(static_cast<const char*>(at) - text.data());
  }
  while (from < text.size() && !first_bytes_[static_cast<unsigned char>(text[from])]) ++from;
  return from;
}

bool AddedTokenMatcher::find(std::string_view text, std::size_t from, std::size_t done, Found& found) const {
  for (std::size_t at = next_candidate(text, from); at < text.size(); at = next_candidate(text, from)) {
    const Trie::Match match = trie_.longest(Trie::kRoot, text.substr(at));
    if (match.size == 0) {
      from = at + 1;
      continue;
    }
    const Entry& entry = entries_[static_cast<std::size_t>(match.value)];
    std::size_t begin = at;
    std::size_t end = at + match.size;
    from = end;
    if (entry.ignored) continue;
    if (entry.token.single_word &&
        (has_flag_before(text, begin, unicode::kWord) || has_flag_at(text, end, unicode::kWord))) {
      continue;
    }
    if (entry.token.lstrip) {
      while (begin > done && has_flag_before(text, begin, unicode::kWhite)) {
        begin -= unicode::decode_before(text.data() + begin).size;
      }
      begin = std::max(begin, done);
    }
    if (entry.token.rstrip) {
      while (has_flag_at(text, end, unicode::kWhite)) end += unicode::decode_at(text.data() + end).size;
    }
    found = {begin, end, from, entry.token.id};
    return true;
  }
  return false;
}

}  // namespace dtrain
