// BLEU (Papineni et al. 2002) as sacrebleu 2.6.0 computes it for a corpus by default: n-grams of up to 4 words, the
// tokenizer 13a of mteval-v13a.pl, exponential smoothing (Chen and Cherry 2014, method 3), the closest reference's
// length.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <unordered_map>
#include <unordered_set>

#include "datasets/tokenizers/unicode.h"
#include "trainer/metrics/text_parts.h"

namespace dtrain {
namespace {

constexpr std::size_t kOrders = 4;

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  for (std::size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size())) {
    text.replace(at, from.size(), to);
  }
}

// Bytes are as good as characters here: the tokenizer only looks at ASCII, and no part of a longer character is a
// digit, a full stop or a comma.
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_no_digit(char c) { return !is_digit(c); }
bool is_stop(char c) { return c == '.' || c == ','; }
bool is_dash(char c) { return c == '-'; }
// ASCII punctuation and symbols but ' , - and the full stop.
bool is_symbol(char c) {
  return (c >= ' ' && c <= '&') || (c >= '(' && c <= '+') || c == '/' || (c >= ':' && c <= '@') ||
         (c >= '[' && c <= '`') || (c >= '{' && c <= '~');
}

// Each pair of neighbours that fit, from the left and without overlap, is parted by a space; another one goes before or
// after it.
std::string part(const std::string& text, bool (*left)(char), bool (*right)(char), bool before, bool after) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (i + 1 < text.size() && left(text[i]) && right(text[i + 1])) {
      if (before) out.push_back(' ');
      out.push_back(text[i]);
      out.push_back(' ');
      out.push_back(text[++i]);
      if (after) out.push_back(' ');
    } else {
      out.push_back(text[i]);
    }
  }
  return out;
}

std::string tokenize_13a(std::string_view line) {
  std::string text(line);
  replace_all(text, "<skipped>", "");
  replace_all(text, "-\n", "");
  replace_all(text, "\n", " ");
  replace_all(text, "&quot;", "\"");
  replace_all(text, "&amp;", "&");
  replace_all(text, "&lt;", "<");
  replace_all(text, "&gt;", ">");
  std::string spaced = " ";
  for (const char c : text) {
    if (is_symbol(c)) {
      spaced += {' ', c, ' '};
    } else {
      spaced.push_back(c);
    }
  }
  spaced.push_back(' ');
  spaced = part(spaced, is_no_digit, is_stop, false, true);
  spaced = part(spaced, is_stop, is_no_digit, true, false);
  return part(spaced, is_digit, is_dash, false, true);
}

std::string tokenize_characters(std::string_view line) {
  std::string text;
  for (const char c : line) {
    if ((static_cast<unsigned char>(c) & 0xC0) != 0x80) text.push_back(' ');
    text.push_back(c);
  }
  return text;
}

// Whether a letter has a lower case or is one: all that lower_text() must know of Unicode's property Cased.
bool is_cased(char32_t point) {
  static const std::unordered_set<char32_t> lower_letters = [] {
    std::unordered_set<char32_t> letters;
    std::u32string lowered;
    for (char32_t each = 0; each < unicode::kCodePoints; ++each) {
      if ((unicode::flags(each) & unicode::kLowers) != 0) unicode::append_lower(each, lowered);
    }
    letters.insert(lowered.begin(), lowered.end());
    return letters;
  }();
  return (unicode::flags(point) & unicode::kLowers) != 0 || lower_letters.contains(point);
}

// Unicode's property Case_Ignorable, as far as texts are made of it: marks, and what may stand inside a word.
bool is_ignored_by_case(char32_t point) {
  constexpr std::u32string_view kInsideWords =
      U"'.:^`\u00A8\u00AD\u00AF\u00B4\u00B7\u00B8\u2018\u2019\u2024\u2027\u200B\u200C\u200D\u200E\u200F\uFEFF"
      U"\U0001F3FB\U0001F3FC\U0001F3FD\U0001F3FE\U0001F3FF";
  return (unicode::flags(point) & unicode::kMark) != 0 || kInsideWords.find(point) != std::u32string_view::npos;
}

// As str.lower() of Python: a capital sigma at the end of a word has a lower case of its own (Unicode, table 3-17).
std::string lower_text(std::string_view text) {
  std::u32string points;
  for (std::size_t at = 0; at < text.size();) {
    const unicode::Decoded next = unicode::decode_at(text.data() + at);
    points.push_back(next.code_point);
    at += next.size;
  }
  const auto ends_word = [&](std::size_t at) {
    std::size_t before = at;
    while (before > 0 && is_ignored_by_case(points[before - 1])) --before;
    if (before == 0 || !is_cased(points[before - 1])) return false;
    std::size_t after = at + 1;
    while (after < points.size() && is_ignored_by_case(points[after])) ++after;
    return after == points.size() || !is_cased(points[after]);
  };
  constexpr char32_t kCapitalSigma = 0x3A3;
  constexpr char32_t kFinalSigma = 0x3C2;
  std::u32string lowered;
  for (std::size_t i = 0; i < points.size(); ++i) {
    if (points[i] == kCapitalSigma && ends_word(i)) {
      lowered.push_back(kFinalSigma);
    } else {
      unicode::append_lower(points[i], lowered);
    }
  }
  std::string out;
  for (const char32_t point : lowered) unicode::append_utf8(point, out);
  return out;
}

enum class Tokenizer { k13a, kNone, kCharacters };

// The n-grams of one text, by n - 1. An n-gram is the piece of the text that has its words, joined by single spaces.
class Ngrams {
 public:
  using Counts = std::unordered_map<std::string_view, std::int64_t>;

  Ngrams(std::string_view text, Tokenizer tokenizer, bool lowercase) {
    const std::string lowered = lowercase ? lower_text(text) : std::string(text);
    const std::string_view line = without_trailing_space(lowered);
    const std::string tokens = tokenizer == Tokenizer::k13a          ? tokenize_13a(line)
                               : tokenizer == Tokenizer::kCharacters ? tokenize_characters(line)
                                                                     : std::string(line);
    std::vector<std::size_t> begins;
    for (const std::string_view word : split_words(tokens)) {
      begins.push_back(text_.size());
      text_ += word;
      text_.push_back(' ');
    }
    words_ = begins.size();
    begins.push_back(text_.size());
    for (std::size_t n = 1; n <= kOrders; ++n) {
      for (std::size_t i = 0; i + n <= words_; ++i) {
        ++counts_[n - 1][std::string_view(text_).substr(begins[i], begins[i + n] - begins[i] - 1)];
      }
    }
  }
  Ngrams(const Ngrams&) = delete;  // its counts look into its text
  Ngrams& operator=(const Ngrams&) = delete;

  [[nodiscard]] std::int64_t words() const { return static_cast<std::int64_t>(words_); }
  [[nodiscard]] const Counts& counts(std::size_t order) const { return counts_[order]; }
  [[nodiscard]] std::int64_t count(std::size_t order, std::string_view ngram) const {
    const auto found = counts_[order].find(ngram);
    return found == counts_[order].end() ? 0 : found->second;
  }

 private:
  std::string text_;
  std::size_t words_ = 0;
  std::array<Counts, kOrders> counts_;
};

// state: [words predicted, words of references, matches by order, predicted n-grams by order].
class Bleu final : public TextMetric {
 public:
  Bleu(Tokenizer tokenizer, bool lowercase)
      : TextMetric(2 + 2 * kOrders), tokenizer_(tokenizer), lowercase_(lowercase) {}

  [[nodiscard]] std::vector<std::pair<std::string, double>> compute() const override { return {{"bleu", value()}}; }

 protected:
  void add_valid(std::string_view prediction, std::span<const std::string_view> references) override {
    const Ngrams predicted(prediction, tokenizer_, lowercase_);
    std::vector<std::unique_ptr<Ngrams>> wanted;
    std::int64_t closest = -1;  // of the lengths; the shorter one of two
    for (const std::string_view reference : references) {
      const Ngrams& each = *wanted.emplace_back(std::make_unique<Ngrams>(reference, tokenizer_, lowercase_));
      const std::int64_t distance = std::abs(each.words() - predicted.words());
      const std::int64_t best = std::abs(closest - predicted.words());
      if (closest < 0 || distance < best || (distance == best && each.words() < closest)) closest = each.words();
    }
    state_[0] += predicted.words();
    state_[1] += closest;
    for (std::size_t order = 0; order < kOrders; ++order) {
      for (const auto& [ngram, count] : predicted.counts(order)) {
        std::int64_t most = 0;
        for (const auto& each : wanted) most = std::max(most, each->count(order, ngram));
        state_[2 + order] += std::min(count, most);
        state_[2 + kOrders + order] += count;
      }
    }
  }

 private:
  // 0 without a match, and without an n-gram of every order. An order without a match gets 1/2, the next such one 1/4,
  // ... of a match.
  [[nodiscard]] double value() const {
    const std::int64_t* matches = &state_[2];
    const std::int64_t* all = matches + kOrders;
    if (std::all_of(matches, all, [](std::int64_t each) { return each == 0; })) return 0;
    double smoothing = 1;
    double logarithms = 0;
    for (std::size_t order = 0; order < kOrders; ++order) {
      if (all[order] == 0) return 0;
      double match = static_cast<double>(matches[order]);
      if (matches[order] == 0) match = 1 / (smoothing *= 2);
      logarithms += std::log(100 * match / static_cast<double>(all[order]));
    }
    const double ratio = static_cast<double>(state_[1]) / static_cast<double>(state_[0]);
    const double brevity = ratio > 1 ? std::exp(1 - ratio) : 1.0;
    return brevity * std::exp(logarithms / kOrders);
  }

  Tokenizer tokenizer_;
  bool lowercase_;
};

}  // namespace

std::unique_ptr<TextMetric> make_bleu(const std::string& variant) {
  const Tokenizer tokenizer = variant == "none"   ? Tokenizer::kNone
                              : variant == "char" ? Tokenizer::kCharacters
                                                  : Tokenizer::k13a;
  return std::make_unique<Bleu>(tokenizer, variant == "lowercase");
}

}  // namespace dtrain
