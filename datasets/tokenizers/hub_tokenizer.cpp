#include "datasets/tokenizers/hub_tokenizer.h"

#include <algorithm>
#include <limits>
#include <span>

#include "core/digest.h"
#include "core/error.h"
#include "datasets/tokenizers/byte_level.h"
#include "datasets/tokenizers/hash.h"
#include "datasets/tokenizers/unicode.h"
#include "datasets/tokenizers/word_cache.h"

namespace dtrain {
namespace {

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  for (std::size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size())) {
    text.replace(at, from.size(), to);
  }
}

// The word-piece decoder's cleaning, applied to each token by itself (decoders/wordpiece.rs of the library).
void clean_up(std::string& token) {
  static constexpr std::pair<std::string_view, std::string_view> kRules[] = {
      {" .", "."},   {" ?", "?"},           {" !", "!"},   {" ,", ","},     {" ' ", "'"},    {" n't", "n't"},
      {" 'm", "'m"}, {" do not", " don't"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"},
  };
  for (const auto& [from, to] : kRules) replace_all(token, from, to);
}

}  // namespace

struct HubTokenizer::Output {
  std::vector<std::int32_t>& ids;
  std::size_t limit;  // size of `ids` at which to stop
  WordCache& cache;
  [[nodiscard]] bool full() const { return ids.size() >= limit; }
};

HubTokenizer::HubTokenizer(TokenizerSpec spec, const std::string& where)
    : spec_(std::move(spec)), serial_(WordCache::next_serial()), normalizer_(spec_.normalizer) {
  if (spec_.model == TokenizerSpec::Model::kBytePair) {
    bpe_.emplace(spec_);
  } else {
    word_piece_.emplace(spec_);
  }
  vocab_size_ = spec_.vocabulary.end_id();
  for (const AddedToken& token : spec_.added_tokens) {
    std::string pattern = token.content;
    if (token.normalized) {
      pattern.clear();
      normalizer_.normalize(token.content, pattern);
    }
    AddedTokenMatcher& matcher = token.normalized ? normalized_tokens_ : raw_tokens_;
    if (!matcher.add(pattern, token, spec_.split_special_tokens)) {
      throw data_error(fmt::format("{}: added token \"{}\" is empty after normalisation, or equal to another one",
                                   where, token.content),
                       "remove one of the added tokens");
    }
    added_by_id_.emplace(token.id, AddedName{token.content, pattern, token.special});
    added_by_content_.emplace(token.content, token.id);
    vocab_size_ = std::max<std::int64_t>(vocab_size_, token.id + 1);
  }
  digest_ = make_digest();
}

std::size_t HubTokenizer::room(const EncodeOptions& options) const {
  const auto special =
      options.add_special_tokens ? static_cast<std::int64_t>(spec_.before.size() + spec_.after.size()) : 0;
  if (options.max_length < 0 || (options.max_length > 0 && options.max_length < special)) {
    throw usage_error(
        fmt::format("max_length = {} leaves no room for the tokenizer's {} special ids", options.max_length, special),
        "choose a larger max_length, or 0 for no limit");
  }
  return options.max_length == 0 ? std::numeric_limits<std::size_t>::max() / 2
                                 : static_cast<std::size_t>(options.max_length - special);
}

void HubTokenizer::encode(std::string_view text, const EncodeOptions& options, std::vector<std::int32_t>& ids) const {
  const std::size_t text_room = room(options);
  if (options.add_special_tokens) ids.insert(ids.end(), spec_.before.begin(), spec_.before.end());
  Output output{ids, ids.size() + text_room, WordCache::of_thread(serial_)};
  encode_raw(text, output);
  if (output.full()) ids.resize(output.limit);
  if (options.add_special_tokens) ids.insert(ids.end(), spec_.after.begin(), spec_.after.end());
}

void HubTokenizer::encode_words(std::span<const std::string> words, const EncodeOptions& options,
                                std::vector<std::int32_t>& ids, std::vector<std::int32_t>& word) const {
  const std::size_t text_room = room(options);
  if (options.add_special_tokens) ids.insert(ids.end(), spec_.before.begin(), spec_.before.end());
  word.resize(ids.size(), -1);
  Output output{ids, ids.size() + text_room, WordCache::of_thread(serial_)};
  for (std::size_t i = 0; i < words.size() && !output.full(); ++i) {
    if (words[i].empty()) continue;
    encode_raw(bpe_ && words[i].front() != ' ' ? " " + words[i] : words[i], output);
    word.resize(ids.size(), static_cast<std::int32_t>(i));
  }
  if (output.full()) {
    ids.resize(output.limit);
    word.resize(output.limit);
  }
  if (options.add_special_tokens) ids.insert(ids.end(), spec_.after.begin(), spec_.after.end());
  word.resize(ids.size(), -1);
}

void HubTokenizer::encode_raw(std::string_view text, Output& output) const {
  std::string repaired;
  if (!unicode::is_valid_utf8(text)) {
    repaired = unicode::replace_invalid_utf8(text);
    text = repaired;
  }
  raw_tokens_.scan(
      text, [&](std::string_view part) { encode_text(part, output); },
      [&](std::int32_t id) { output.ids.push_back(id); });
}

void HubTokenizer::encode_text(std::string_view text, Output& output) const {
  if (output.full()) return;
  std::string normalized;
  if (word_piece_) {
    normalizer_.normalize(text, normalized);
    text = normalized;
  }
  normalized_tokens_.scan(
      text, [&](std::string_view part) { word_piece_ ? encode_bert_words(part, output) : encode_pieces(part, output); },
      [&](std::int32_t id) { output.ids.push_back(id); });
}

void HubTokenizer::encode_pieces(std::string_view text, Output& output) const {
  std::string prefixed;
  if (spec_.add_prefix_space && text[0] != ' ') {
    prefixed.reserve(text.size() + 1);
    prefixed.append(1, ' ').append(text);
    text = prefixed;
  }
  while (!text.empty() && !output.full()) {
    const std::size_t size = spec_.use_pattern ? next_piece(text) : text.size();
    encode_word(text.substr(0, size), output);
    text.remove_prefix(size);
  }
}

void HubTokenizer::encode_bert_words(std::string_view text, Output& output) const {
  while (!text.empty() && !output.full()) {
    std::size_t white = 0;
    const std::size_t size = next_bert_word(text, &white);
    if (size > 0) encode_word(text.substr(0, size), output);
    text.remove_prefix(size + white);
  }
}

void HubTokenizer::encode_word(std::string_view word, Output& output) const {
  const bool cached = word.size() <= WordCache::kMaxWordBytes;
  const std::uint64_t hash = cached ? hash_bytes(word) : 0;
  if (cached && output.cache.append(word, hash, output.ids)) return;
  const std::size_t begin = output.ids.size();
  if (bpe_) {
    bpe_->encode(word, output.ids);
  } else {
    word_piece_->encode(word, output.ids);
  }
  if (cached) output.cache.insert(word, hash, std::span<const std::int32_t>(output.ids).subspan(begin));
}

std::string HubTokenizer::decode(const std::vector<std::int32_t>& ids, bool skip_special_tokens) const {
  std::string text;
  bool first = true;
  for (const std::int32_t id : ids) {
    std::string token;
    if (const auto added = added_by_id_.find(id); added != added_by_id_.end()) {
      if (skip_special_tokens && added->second.special) continue;
      token = added->second.decoded;
    } else if (const auto known = spec_.vocabulary.token(id)) {
      token = *known;
    } else {
      continue;
    }
    switch (spec_.decoder) {
      case TokenizerSpec::Decoder::kByteLevel:
        token = bytes_of_token(token);
        break;
      case TokenizerSpec::Decoder::kWordPiece:
        if (!first) {
          if (token.starts_with(spec_.decoder_prefix)) {
            token.erase(0, spec_.decoder_prefix.size());
          } else {
            token.insert(0, 1, ' ');
          }
        }
        if (spec_.decoder_cleanup) clean_up(token);
        break;
      case TokenizerSpec::Decoder::kJoinWithSpaces:
        if (!first) token.insert(0, 1, ' ');
        break;
    }
    text += token;
    first = false;
  }
  // Ids cut between the bytes of a character.
  if (!unicode::is_valid_utf8(text)) return unicode::replace_invalid_utf8(text);
  return text;
}

std::optional<std::int32_t> HubTokenizer::token_to_id(std::string_view token) const {
  const auto added = added_by_content_.find(std::string(token));
  return added == added_by_content_.end() ? spec_.vocabulary.find(token) : std::optional(added->second);
}

std::optional<std::string> HubTokenizer::id_to_token(std::int32_t id) const {
  if (const auto added = added_by_id_.find(id); added != added_by_id_.end()) return added->second.content;
  const auto token = spec_.vocabulary.token(id);
  return token ? std::optional<std::string>(*token) : std::nullopt;
}

std::vector<std::int32_t> HubTokenizer::special_ids() const {
  std::vector<std::int32_t> ids;
  for (const AddedToken& token : spec_.added_tokens) {
    if (token.special) ids.push_back(token.id);
  }
  return ids;
}

std::string HubTokenizer::make_digest() const {
  // A canonical text of all that encode() looks at: the same for tokenizer.json and for the older files.
  Digest digest;
  const auto number = [&](std::int64_t value) { digest.add(fmt::format("{},", value)); };
  const auto text = [&](std::string_view value) {
    number(static_cast<std::int64_t>(value.size()));
    digest.add(value);
  };
  const bool byte_pair = bpe_.has_value();
  text(byte_pair ? "byte pairs 1" : "word pieces 1");
  for (std::int32_t id = 0; id < spec_.vocabulary.end_id(); ++id) {
    if (const auto token = spec_.vocabulary.token(id)) {
      number(id);
      text(*token);
    }
  }
  number(spec_.unknown_id.value_or(-1));
  if (byte_pair) {
    for (const Merge& merge : spec_.merges) {
      number(merge.left);
      number(merge.right);
    }
    for (const bool flag : {spec_.fuse_unknown, spec_.add_prefix_space, spec_.use_pattern}) number(flag);
  } else {
    text(spec_.continuation_prefix);
    number(static_cast<std::int64_t>(spec_.max_word_characters));
    const BertNormalizerOptions& n = spec_.normalizer;
    for (const bool flag : {n.clean_text, n.handle_chinese_chars, n.strip_accents, n.lowercase}) number(flag);
  }
  std::vector<AddedToken> added = spec_.added_tokens;
  std::sort(added.begin(), added.end(), [](const AddedToken& a, const AddedToken& b) { return a.id < b.id; });
  // Without a normaliser the two searches differ in order only, which shows when both have something to find.
  const bool two_searches = std::any_of(added.begin(), added.end(), [&](const AddedToken& token) {
    return token.normalized != added.front().normalized;
  });
  for (const AddedToken& token : added) {
    number(token.id);
    text(token.content);
    const bool normalized = token.normalized && (!byte_pair || two_searches);
    for (const bool flag : {token.special, token.single_word, token.lstrip, token.rstrip, normalized}) number(flag);
  }
  number(spec_.split_special_tokens);
  for (const std::int32_t id : spec_.before) number(id);
  text("text");
  for (const std::int32_t id : spec_.after) number(id);
  return digest.hex();
}

}  // namespace dtrain
