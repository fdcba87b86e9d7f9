// A fast hash of short byte strings for tables in memory. Not stable between versions, not for files.
#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>

namespace dtrain {

[[nodiscard]] inline std::uint64_t hash_bytes(std::string_view bytes) {
  constexpr std::uint64_t kMultiplier = 0x9E3779B97F4A7C15ULL;
  std::uint64_t hash = bytes.size() * kMultiplier;
  const char* at = bytes.data();
  std::size_t left = bytes.size();
  const auto mix = [&hash](std::uint64_t word) {
    hash = (hash ^ word) * kMultiplier;
    hash ^= hash >> 32;
  };
  for (; left >= 8; at += 8, left -= 8) {
    std::uint64_t word;
    std::memcpy(&word, at, 8);
    mix(word);
  }
  // The tail in at most two overlapping loads.
  if (left >= 4) {
    std::uint32_t first;
    std::uint32_t last;
    std::memcpy(&first, at, 4);
    std::memcpy(&last, at + left - 4, 4);
    mix(first | static_cast<std::uint64_t>(last) << 32);
  } else if (left > 0) {
    const auto byte = [at](std::size_t i) { return static_cast<std::uint64_t>(static_cast<unsigned char>(at[i])); };
    mix(byte(0) | byte(left / 2) << 8 | byte(left - 1) << 16);
  }
  hash *= kMultiplier;
  return hash ^ (hash >> 29);
}

}  // namespace dtrain
