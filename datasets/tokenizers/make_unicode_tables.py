#!/usr/bin/env python3
"""Writes unicode_tables.cpp: what the `tokenizers` library believes about every Unicode code point.

The library takes its Unicode data from five places with different Unicode versions (Oniguruma for \\p{L}, \\p{N}, \\s; the
crates unicode_categories for categories, unicode-normalization-alignments for NFD, regex for \\w; Rust's standard library for
white space and lower case). Equal ids need equal beliefs, so nothing is read from Unicode's own files: each of the 1,112,064
code points is put through the library and the answer is written down.

usage: make_unicode_tables.py [FILE]      (default: unicode_tables.cpp beside this script; takes about a minute)
"""
import pathlib
import sys

import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]
LETTER, NUMBER, SPACE, WHITE, OTHER, PUNCTUATION, MARK, WORD, DECOMPOSES, LOWERS, COMBINES = (1 << i for i in range(11))
HANGUL = range(0xAC00, 0xAC00 + 11172)  # decomposed by arithmetic (Unicode, section 3.12)


def split_by(pre_tokenizer):
    """Code points at which the pre-tokenizer cuts `a?a`."""
    return {c for c in CODE_POINTS if len(pre_tokenizer.pre_tokenize_str("a" + chr(c) + "a")) > 1}


def matches(pattern):
    regex = pre_tokenizers.Split(Regex(pattern), "removed")
    return {c for c in CODE_POINTS if not regex.pre_tokenize_str(chr(c))}


def added_token_probe(**flags):
    tokenizer = Tokenizer(models.WordLevel({"u": 0}, unk_token="u"))
    tokenizer.add_tokens([AddedToken("~T~", normalized=False, **flags)])
    return lambda text: tokenizer.encode(text, add_special_tokens=False)


def combining_classes(nfd):
    """Canonical combining classes found by watching which neighbours change places."""
    import unicodedata
    known = {}
    for c in CODE_POINTS:
        k = unicodedata.combining(chr(c))
        if k and nfd(chr(c)) == chr(c):
            known.setdefault(k, []).append(c)
    order = sorted(known)

    def less(a, b):  # 0 < ccc(a) < ccc(b)
        return a != b and nfd(chr(b) + chr(a)) == chr(a) + chr(b)

    # One reference character a class; a class the library does not order (a newer character) tries the next character.
    low, high = 0x0334, 0x0345
    references = {}
    for k in order:
        for c in known[k]:
            if (k == 1 or less(low, c)) and (k == 240 or less(c, high)):
                references[k] = c
                break
    classes = {}
    for c in CODE_POINTS:
        if nfd(chr(c)) != chr(c) or not (less(c, high) or less(low, c)):
            continue
        smaller = [k for k, reference in references.items() if less(reference, c)]
        larger = [k for k, reference in references.items() if less(c, reference)]
        middle = [k for k in references if k not in smaller and k not in larger]
        assert len(middle) == 1, (hex(c), middle)
        classes[c] = middle[0]
    return classes


def collect():
    flags = dict.fromkeys(CODE_POINTS, 0)

    def mark(points, bit):
        for c in points:
            flags[c] |= bit

    mark(matches(r"\p{L}"), LETTER)
    mark(matches(r"\p{N}"), NUMBER)
    mark(matches(r"\s"), SPACE)
    white = split_by(pre_tokenizers.WhitespaceSplit())
    mark(white, WHITE)
    mark(split_by(pre_tokenizers.BertPreTokenizer()) - white, PUNCTUATION)

    clean = normalizers.BertNormalizer(clean_text=True, handle_chinese_chars=False, strip_accents=False, lowercase=False)
    for c in CODE_POINTS:
        got = clean.normalize_str("a" + chr(c) + "b")
        assert got in ("ab", "a b" if c in white else "a" + chr(c) + "b"), hex(c)
        if got == "ab":
            flags[c] |= OTHER

    word = added_token_probe(single_word=True)
    strip = added_token_probe(rstrip=True)
    for c in CODE_POINTS:
        if 1 not in word("~T~" + chr(c)).ids:
            flags[c] |= WORD
        assert (len(strip("~T~" + chr(c)).ids) == 1) == (c in white), hex(c)

    nfd = normalizers.NFD().normalize_str
    lower = normalizers.Lowercase().normalize_str
    marks = normalizers.BertNormalizer(clean_text=False, handle_chinese_chars=False, strip_accents=True, lowercase=False)
    decompositions, lowered = {}, {}
    for c in CODE_POINTS:
        text = chr(c)
        if nfd(text) == text:
            if marks.normalize_str(text) == "":
                flags[c] |= MARK
        else:
            flags[c] |= DECOMPOSES
            if c not in HANGUL:
                decompositions[c] = [ord(x) for x in nfd(text)]
        if lower(text) != text:
            flags[c] |= LOWERS
            lowered[c] = [ord(x) for x in lower(text)]
    for c in HANGUL:
        i = c - 0xAC00
        parts = [0x1100 + i // 588, 0x1161 + i % 588 // 28] + ([0x11A7 + i % 28] if i % 28 else [])
        assert [ord(x) for x in nfd(chr(c))] == parts
    classes = combining_classes(nfd)
    mark(classes, COMBINES)
    return flags, decompositions, lowered, classes


def runs(pairs):
    """(first, last, value) of consecutive keys with equal value."""
    result = []
    for key, value in pairs:
        if result and result[-1][1] == key - 1 and result[-1][2] == value:
            result[-1][1] = key
        else:
            result.append([key, key, value])
    return result


def lower_runs(lowered):
    """(first, last, step, delta) of single-character mappings; step 2 covers the alternating pairs of Latin and Cyrillic."""
    result = []
    for key, value in sorted(lowered.items()):
        if len(value) != 1:
            continue
        delta = value[0] - key
        if result and result[-1][3] == delta:
            first, last, step, _ = result[-1]
            gap = key - last
            if gap in (1, 2) and (step == gap or first == last):
                result[-1][1:3] = [key, gap]
                continue
        result.append([key, key, 1, delta])
    return result


def write(path, flags, decompositions, lowered, classes):
    def table(kind, name, rows):
        lines, line = [], " "
        for row in rows:
            cell = " " + row + ","
            if len(line) + len(cell) > 118:
                lines.append(line)
                line = " "
            line += cell
        lines.append(line)
        count = len(rows)
        return (f"namespace {{\nconstexpr std::array<{kind}, {count}> {name}Data = {{{{\n" + "\n".join(lines) +
                f"\n}}}};\n}}  // namespace\nconst std::span<const {kind}> {name} = {name}Data;\n\n")

    flag_rows, previous = [], None
    for c in range(0x110000):
        value = flags.get(c, 0)
        if value != previous:
            flag_rows.append(f"{{0x{c:X},{value}}}")
            previous = value
    flat = [x for c, parts in sorted(decompositions.items()) for x in (c, len(parts), *parts)]
    long_lower = [x for c, parts in sorted(lowered.items()) if len(parts) > 1 for x in (c, len(parts), *parts)]
    text = ("// Made by make_unicode_tables.py from the library tokenizers " + tokenizers.__version__ + "; do not edit.\n"
            '#include "datasets/tokenizers/unicode_tables.h"\n\n#include <array>\n\n'
            "// clang-format off\nnamespace dtrain::unicode_tables {\n\n")
    text += table("Property", "kProperties", flag_rows)
    text += table("LowerRun", "kLowerRuns", [f"{{0x{a:X},0x{b:X},{s},{d}}}" for a, b, s, d in lower_runs(lowered)])
    text += table("std::uint32_t", "kLongLower", [f"0x{x:X}" if x > 9 else str(x) for x in long_lower])
    text += table("ClassRun", "kCombiningClasses", [f"{{0x{a:X},0x{b:X},{v}}}" for a, b, v in runs(sorted(classes.items()))])
    text += table("std::uint32_t", "kDecompositions", [f"0x{x:X}" if x > 9 else str(x) for x in flat])
    text += "}  // namespace dtrain::unicode_tables\n"
    path.write_text(text)


if __name__ == "__main__":
    target = sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).with_name("unicode_tables.cpp")
    write(pathlib.Path(target), *collect())
