// What the `tokenizers` library believes about each code point; unicode.h turns it into functions.
// Written by make_unicode_tables.py, which says where the facts come from.
#pragma once

#include <cstdint>
#include <span>

namespace dtrain::unicode_tables {

// `flags` (see unicode.h) hold from `first` up to the next entry.
struct Property {
  std::uint32_t first;
  std::uint16_t flags;
};
// first, first + step, ..., last become itself plus delta in lower case.
struct LowerRun {
  std::uint32_t first;
  std::uint32_t last;
  std::uint32_t step;
  std::int32_t delta;
};
// first..last have this canonical combining class.
struct ClassRun {
  std::uint32_t first;
  std::uint32_t last;
  std::uint8_t combining_class;
};

extern const std::span<const Property> kProperties;
extern const std::span<const LowerRun> kLowerRuns;
extern const std::span<const ClassRun> kCombiningClasses;
// Repeated: code point, n, n code points. Ascending. Lower case of more than one character; full canonical
// decompositions.
extern const std::span<const std::uint32_t> kLongLower;
extern const std::span<const std::uint32_t> kDecompositions;

}  // namespace dtrain::unicode_tables
