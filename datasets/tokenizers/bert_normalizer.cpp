#include "datasets/tokenizers/bert_normalizer.h"

#include <algorithm>

#include "datasets/tokenizers/unicode.h"

namespace dtrain {
namespace {

constexpr char kRemoved = '\x7F';  // itself always removed by cleaning, and never made by it

// The blocks that count as ideographs: those of Google's BERT (tokenization.py) with the one start that the library has
// different (U+2B920 for U+2B820).
bool is_ideograph(char32_t c) {
  return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) || (c >= 0x20000 && c <= 0x2A6DF) ||
         (c >= 0x2A700 && c <= 0x2B73F) || (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) ||
         (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

enum class WordKind : std::uint8_t { kInside, kWhite, kPunctuation };

constexpr std::array<WordKind, 128> kAsciiKinds = [] {
  std::array<WordKind, 128> kinds{};
  for (std::size_t c = 0x21; c < 0x7F; ++c) {
    const bool inside = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
    kinds[c] = inside ? WordKind::kInside : WordKind::kPunctuation;
  }
  for (std::size_t c = '\t'; c <= '\r'; ++c) kinds[c] = WordKind::kWhite;
  kinds[' '] = WordKind::kWhite;
  return kinds;
}();

WordKind kind_of(char32_t code_point) {
  const std::uint16_t flags = unicode::flags(code_point);
  if ((flags & unicode::kWhite) != 0) return WordKind::kWhite;
  return (flags & unicode::kPunctuation) != 0 ? WordKind::kPunctuation : WordKind::kInside;
}

}  // namespace

BertNormalizer::BertNormalizer(const BertNormalizerOptions& options) : options_(options) {
  for (char32_t c = 0; c < 128; ++c) {
    char result = static_cast<char>(c);
    if (options_.lowercase && c >= 'A' && c <= 'Z') result = static_cast<char>(c - 'A' + 'a');
    if (options_.clean_text) {
      if (c == '\t' || c == '\n' || c == '\r') result = ' ';
      if ((unicode::flags(c) & unicode::kOther) != 0) result = kRemoved;
    }
    ascii_[c] = result;
  }
}

void BertNormalizer::decompose(char32_t c, std::u32string& out) const {
  if (options_.clean_text) {
    const std::uint16_t flags = unicode::flags(c);
    if ((flags & unicode::kOther) != 0) return;
    if ((flags & unicode::kWhite) != 0) c = ' ';
  }
  const bool spaced = options_.handle_chinese_chars && is_ideograph(c);
  if (spaced) out.push_back(' ');
  if (options_.strip_accents) {
    unicode::append_decomposed(c, out);
  } else {
    out.push_back(c);
  }
  if (spaced) out.push_back(' ');
}

void BertNormalizer::finish(char32_t c, std::u32string& out) const {
  if (options_.strip_accents && (unicode::flags(c) & unicode::kMark) != 0) return;
  if (options_.lowercase) {
    unicode::append_lower(c, out);
  } else {
    out.push_back(c);
  }
}

void BertNormalizer::normalize(std::string_view text, std::string& out) const {
  const std::size_t begin = out.size();
  out.reserve(begin + text.size());
  std::u32string parts;
  std::u32string result;
  const char* at = text.data();
  const char* const end = at + text.size();
  while (at < end) {
    if (static_cast<unsigned char>(*at) < 0x80) {
      const char c = ascii_[static_cast<unsigned char>(*at++)];
      if (c != kRemoved || !options_.clean_text) out.push_back(c);
      continue;
    }
    const unicode::Decoded decoded = unicode::decode_at(at);
    at += decoded.size;
    parts.clear();
    result.clear();
    decompose(decoded.code_point, parts);
    for (const char32_t c : parts) {
      // Marks leave the text, so their order does not matter. Other non-starters stay, and may have to move.
      constexpr std::uint16_t kBoth = unicode::kCombines | unicode::kMark;
      if (options_.strip_accents && (unicode::flags(c) & kBoth) == unicode::kCombines) {
        out.resize(begin);
        normalize_in_order(text, out);
        return;
      }
      finish(c, result);
    }
    for (const char32_t c : result) unicode::append_utf8(c, out);
  }
}

void BertNormalizer::normalize_in_order(std::string_view text, std::string& out) const {
  std::u32string parts;
  for (std::size_t i = 0; i < text.size();) {
    const unicode::Decoded decoded = unicode::decode_at(text.data() + i);
    decompose(decoded.code_point, parts);
    i += decoded.size;
  }
  unicode::order_canonically(parts);
  std::u32string result;
  for (const char32_t c : parts) {
    result.clear();
    finish(c, result);
    for (const char32_t r : result) unicode::append_utf8(r, out);
  }
}

std::size_t next_bert_word(std::string_view text, std::size_t* white) {
  const char* const begin = text.data();
  const char* const end = begin + text.size();
  for (const char* at = begin; at < end;) {
    const auto byte = static_cast<unsigned char>(*at);
    WordKind kind = WordKind::kInside;
    std::size_t size = 1;
    if (byte < 0x80) {
      kind = kAsciiKinds[byte];
    } else {
      const unicode::Decoded decoded = unicode::decode_at(at);
      kind = kind_of(decoded.code_point);
      size = decoded.size;
    }
    if (kind != WordKind::kInside) {
      if (at > begin) return static_cast<std::size_t>(at - begin);
      if (kind == WordKind::kPunctuation) return size;
      *white = size;
      return 0;
    }
    at += size;
  }
  return text.size();
}

}  // namespace dtrain
