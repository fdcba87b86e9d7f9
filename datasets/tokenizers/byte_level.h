// The byte level of GPT-2: the pattern that cuts text into pieces, and the characters that stand for bytes in
// vocabularies. Pure functions, thread-safe.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace dtrain {

// Bytes of the piece at the start of `text` (valid UTF-8, not empty) under GPT-2's pattern (github.com/openai/gpt-2,
// src/encoder.py):  's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
[[nodiscard]] std::size_t next_piece(std::string_view text);

// The character of a byte: printable Latin-1 stands for itself, the other 68 bytes for U+0100 and up, in order.
[[nodiscard]] char32_t character_of_byte(std::uint8_t byte);

// The bytes a token stands for; the token's own UTF-8 when a character of it stands for no byte (the library's rule).
[[nodiscard]] std::string bytes_of_token(std::string_view token);

}  // namespace dtrain
