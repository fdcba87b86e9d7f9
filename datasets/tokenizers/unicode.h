// Unicode for tokenizers: properties, lower case and canonical decomposition exactly as the `tokenizers` library has
// them (it mixes several Unicode versions, see make_unicode_tables.py), and UTF-8. Pure functions, thread-safe.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace dtrain::unicode {

// Properties of a code point, one bit each. The values are those of make_unicode_tables.py.
enum Flag : std::uint16_t {
  kLetter = 1 << 0,       // \p{L} of the byte-level pattern
  kNumber = 1 << 1,       // \p{N} of the byte-level pattern
  kSpace = 1 << 2,        // \s of the byte-level pattern
  kWhite = 1 << 3,        // White_Space
  kOther = 1 << 4,        // removed by BERT's text cleaning
  kPunctuation = 1 << 5,  // a word of its own for BERT
  kMark = 1 << 6,         // removed by BERT's accent stripping
  kWord = 1 << 7,         // \w, for added tokens with single_word
  kDecomposes = 1 << 8,   // differs from its canonical decomposition
  kLowers = 1 << 9,       // differs from its lower case
  kCombines = 1 << 10,    // canonical combining class above 0
};

inline constexpr std::uint32_t kCodePoints = 0x110000;

namespace internal {
extern const std::uint16_t* const kFlags;  // one entry a code point
}

// `code_point` < kCodePoints.
[[nodiscard]] inline std::uint16_t flags(char32_t code_point) { return internal::kFlags[code_point]; }

// Appends the lower case (context-free, as Rust's char::to_lowercase) or the full canonical decomposition.
void append_lower(char32_t code_point, std::u32string& out);
void append_decomposed(char32_t code_point, std::u32string& out);

// 0 for starters.
[[nodiscard]] std::uint8_t combining_class(char32_t code_point);
// The canonical ordering algorithm (Unicode, section 3.11): stable sort of each run of non-starters by class.
void order_canonically(std::u32string& text);

struct Decoded {
  char32_t code_point;
  std::size_t size;  // bytes
};

// The code point that starts at `at`, in a sequence that is known to be valid UTF-8.
[[nodiscard]] inline Decoded decode_at(const char* at) {
  const auto byte = [at](std::size_t i) { return static_cast<char32_t>(static_cast<unsigned char>(at[i])); };
  const char32_t lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  if (lead < 0xE0) return {((lead & 0x1F) << 6) | (byte(1) & 0x3F), 2};
  if (lead < 0xF0) return {((lead & 0x0F) << 12) | ((byte(1) & 0x3F) << 6) | (byte(2) & 0x3F), 3};
  return {((lead & 0x07) << 18) | ((byte(1) & 0x3F) << 12) | ((byte(2) & 0x3F) << 6) | (byte(3) & 0x3F), 4};
}
// The code point that ends just before `end`, likewise.
[[nodiscard]] Decoded decode_before(const char* end);

void append_utf8(char32_t code_point, std::string& out);
[[nodiscard]] std::size_t count_code_points(std::string_view valid_text);

[[nodiscard]] bool is_valid_utf8(std::string_view text);
// Each maximal part of an ill-formed sequence becomes one U+FFFD (Unicode, section 3.9; Python's errors="replace").
[[nodiscard]] std::string replace_invalid_utf8(std::string_view text);

}  // namespace dtrain::unicode
