#include "datasets/tokenizers/unicode.h"

#include <algorithm>
#include <unordered_map>

#include <simdjson.h>

#include "datasets/tokenizers/unicode_tables.h"

namespace dtrain::unicode {
namespace {

using Mappings = std::unordered_map<char32_t, std::u32string>;

Mappings read_mappings(std::span<const std::uint32_t> flat) {
  Mappings mappings;
  for (std::size_t i = 0; i < flat.size(); i += 2 + flat[i + 1]) {
    std::u32string& parts = mappings[flat[i]];
    for (std::size_t k = 0; k < flat[i + 1]; ++k) parts.push_back(flat[i + 2 + k]);
  }
  return mappings;
}

std::vector<std::uint16_t> expand_properties() {
  std::vector<std::uint16_t> flags(kCodePoints);
  const auto runs = unicode_tables::kProperties;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    const std::size_t end = i + 1 < runs.size() ? runs[i + 1].first : kCodePoints;
    std::fill(flags.begin() + runs[i].first, flags.begin() + static_cast<std::ptrdiff_t>(end), runs[i].flags);
  }
  return flags;
}

// The run of an ascending table that contains `code_point`, or null.
template <class Run>
const Run* find_run(std::span<const Run> runs, char32_t code_point) {
  const auto after = std::upper_bound(runs.begin(), runs.end(), code_point,
                                      [](char32_t value, const Run& run) { return value < run.first; });
  if (after == runs.begin()) return nullptr;
  const Run& run = *(after - 1);
  return code_point <= run.last ? &run : nullptr;
}

// Bytes of the sequence that starts at `text[0]` and whether it is well-formed; for an ill-formed one the length of its
// maximal part (Unicode, table 3-7: the second byte of E0, ED, F0 and F4 has a narrower range).
struct Sequence {
  std::size_t size;
  bool valid;
};
Sequence scan_sequence(std::string_view text) {
  const auto byte = [text](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned lead = byte(0);
  if (lead < 0x80) return {1, true};
  if (lead < 0xC2 || lead > 0xF4) return {1, false};
  const std::size_t wanted = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  unsigned low = 0x80;
  unsigned high = 0xBF;
  if (lead == 0xE0) low = 0xA0;
  if (lead == 0xED) high = 0x9F;
  if (lead == 0xF0) low = 0x90;
  if (lead == 0xF4) high = 0x8F;
  for (std::size_t i = 1; i < wanted; ++i) {
    if (i >= text.size() || byte(i) < low || byte(i) > high) return {i, false};
    low = 0x80;
    high = 0xBF;
  }
  return {wanted, true};
}

}  // namespace

namespace internal {
const std::uint16_t* const kFlags = [] {
  static const std::vector<std::uint16_t> flags = expand_properties();
  return flags.data();
}();
}  // namespace internal

void append_lower(char32_t code_point, std::u32string& out) {
  static const Mappings long_mappings = read_mappings(unicode_tables::kLongLower);
  if ((flags(code_point) & kLowers) == 0) {
    out.push_back(code_point);
    return;
  }
  if (const auto found = long_mappings.find(code_point); found != long_mappings.end()) {
    out += found->second;
    return;
  }
  // Inside a run of step 2 only every other character has the flag.
  const auto* run = find_run(unicode_tables::kLowerRuns, code_point);
  out.push_back(run == nullptr ? code_point
                               : static_cast<char32_t>(static_cast<std::int64_t>(code_point) + run->delta));
}

void append_decomposed(char32_t code_point, std::u32string& out) {
  if ((flags(code_point) & kDecomposes) == 0) {
    out.push_back(code_point);
    return;
  }
  // Hangul syllables by arithmetic (Unicode, section 3.12).
  constexpr char32_t kFirst = 0xAC00;
  constexpr char32_t kVowels = 21;
  constexpr char32_t kTrails = 28;
  if (code_point >= kFirst && code_point < kFirst + 19 * kVowels * kTrails) {
    const char32_t index = code_point - kFirst;
    out.push_back(0x1100 + index / (kVowels * kTrails));
    out.push_back(0x1161 + index % (kVowels * kTrails) / kTrails);
    if (index % kTrails != 0) out.push_back(0x11A7 + index % kTrails);
    return;
  }
  static const Mappings mappings = read_mappings(unicode_tables::kDecompositions);
  out += mappings.at(code_point);
}

std::uint8_t combining_class(char32_t code_point) {
  if ((flags(code_point) & kCombines) == 0) return 0;
  const auto* run = find_run(unicode_tables::kCombiningClasses, code_point);
  return run == nullptr ? std::uint8_t{0} : run->combining_class;
}

void order_canonically(std::u32string& text) {
  for (std::size_t begin = 0; begin < text.size();) {
    if ((flags(text[begin]) & kCombines) == 0) {
      ++begin;
      continue;
    }
    std::size_t end = begin + 1;
    while (end < text.size() && (flags(text[end]) & kCombines) != 0) ++end;
    std::stable_sort(text.begin() + static_cast<std::ptrdiff_t>(begin), text.begin() + static_cast<std::ptrdiff_t>(end),
                     [](char32_t a, char32_t b) { return combining_class(a) < combining_class(b); });
    begin = end;
  }
}

Decoded decode_before(const char* end) {
  const char* at = end - 1;
  while ((static_cast<unsigned char>(*at) & 0xC0) == 0x80) --at;
  return decode_at(at);
}

void append_utf8(char32_t code_point, std::string& out) {
  const auto push = [&out](char32_t value) { out.push_back(static_cast<char>(static_cast<unsigned char>(value))); };
  if (code_point < 0x80) {
    push(code_point);
  } else if (code_point < 0x800) {
    push(0xC0 | (code_point >> 6));
    push(0x80 | (code_point & 0x3F));
  } else if (code_point < 0x10000) {
    push(0xE0 | (code_point >> 12));
    push(0x80 | ((code_point >> 6) & 0x3F));
    push(0x80 | (code_point & 0x3F));
  } else {
    push(0xF0 | (code_point >> 18));
    push(0x80 | ((code_point >> 12) & 0x3F));
    push(0x80 | ((code_point >> 6) & 0x3F));
    push(0x80 | (code_point & 0x3F));
  }
}

std::size_t count_code_points(std::string_view valid_text) {
  return static_cast<std::size_t>(std::count_if(valid_text.begin(), valid_text.end(),
                                                [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

bool is_valid_utf8(std::string_view text) {
  return text.empty() || simdjson::validate_utf8(text.data(), text.size());  // no null pointer for the library
}

std::string replace_invalid_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const Sequence sequence = scan_sequence(text);
    if (sequence.valid) {
      out += text.substr(0, sequence.size);
    } else {
      out += "\xEF\xBF\xBD";
    }
    text.remove_prefix(sequence.size);
  }
  return out;
}

}  // namespace dtrain::unicode
