#include "datasets/tokenizers/byte_level.h"

#include "datasets/tokenizers/unicode.h"

namespace dtrain {
namespace {

enum class Kind : std::uint8_t { kOther, kLetter, kNumber, kSpace };

Kind kind_of(char32_t code_point) {
  const std::uint16_t flags = unicode::flags(code_point);
  if ((flags & unicode::kLetter) != 0) return Kind::kLetter;
  if ((flags & unicode::kNumber) != 0) return Kind::kNumber;
  if ((flags & unicode::kSpace) != 0) return Kind::kSpace;
  return Kind::kOther;
}

constexpr std::array<Kind, 128> kAsciiKinds = [] {
  std::array<Kind, 128> kinds{};
  for (std::size_t c = 'a'; c <= 'z'; ++c) kinds[c] = kinds[c - 'a' + 'A'] = Kind::kLetter;
  for (std::size_t c = '0'; c <= '9'; ++c) kinds[c] = Kind::kNumber;
  for (std::size_t c = '\t'; c <= '\r'; ++c) kinds[c] = Kind::kSpace;
  kinds[' '] = Kind::kSpace;
  return kinds;
}();

struct KindAt {
  Kind kind;
  std::size_t size;
};
inline KindAt kind_at(const char* at) {
  const auto byte = static_cast<unsigned char>(*at);
  if (byte < 0x80) return {kAsciiKinds[byte], 1};
  const unicode::Decoded decoded = unicode::decode_at(at);
  return {kind_of(decoded.code_point), decoded.size};
}

// Bytes of the contraction ('s, 't, 're, 've, 'm, 'll, 'd) at the start of `text`, or 0.
std::size_t contraction(std::string_view text) {
  if (text.size() < 2 || text[0] != '\'') return 0;
  switch (text[1]) {
    case 's':
    case 't':
    case 'm':
    case 'd':
      return 2;
    case 'r':
    case 'v':
      return text.size() > 2 && text[2] == 'e' ? 3 : 0;
    case 'l':
      return text.size() > 2 && text[2] == 'l' ? 3 : 0;
    default:
      return 0;
  }
}

constexpr bool stands_for_itself(unsigned byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

struct ByteCharacters {
  std::array<char32_t, 256> character{};
  std::array<std::int16_t, 0x144> byte{};  // -1: stands for no byte
};
const ByteCharacters kBytes = [] {
  ByteCharacters bytes;
  bytes.byte.fill(-1);
  char32_t next = 0x100;
  for (unsigned b = 0; b < 256; ++b) {
    const char32_t c = stands_for_itself(b) ? b : next++;
    bytes.character[b] = c;
    bytes.byte[c] = static_cast<std::int16_t>(b);
  }
  return bytes;
}();

}  // namespace

std::size_t next_piece(std::string_view text) {
  if (const std::size_t size = contraction(text); size > 0) return size;
  const char* const begin = text.data();
  const char* const end = begin + text.size();
  KindAt first = kind_at(begin);
  const char* at = begin + first.size;
  // One space may lead a run of any other kind.
  if (*begin == ' ' && at < end) {
    const KindAt second = kind_at(at);
    if (second.kind != Kind::kSpace) {
      first = second;
      at += second.size;
    }
  }
  const char* last = begin;  // start of the last character of the run
  while (at < end) {
    const KindAt next = kind_at(at);
    if (next.kind != first.kind) break;
    last = at;
    at += next.size;
  }
  // White space before something else leaves its last character to what follows, unless it is alone.
  if (first.kind == Kind::kSpace && at < end && last > begin) at = last;
  return static_cast<std::size_t>(at - begin);
}

char32_t character_of_byte(std::uint8_t byte) { return kBytes.character[byte]; }

std::string bytes_of_token(std::string_view token) {
  std::string bytes;
  for (std::size_t i = 0; i < token.size();) {
    const unicode::Decoded decoded = unicode::decode_at(token.data() + i);
    if (decoded.code_point >= kBytes.byte.size() || kBytes.byte[decoded.code_point] < 0) return std::string(token);
    bytes.push_back(static_cast<char>(static_cast<unsigned char>(kBytes.byte[decoded.code_point])));
    i += decoded.size;
  }
  return bytes;
}

}  // namespace dtrain
