// ROUGE as the Python package rouge_score 0.1.2 computes it without stemmer: recall-oriented overlap of n-grams and of
// longest common subsequences (Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries", sections 2 to 3.2).
#include <algorithm>
#include <limits>
#include <unordered_map>

#include "trainer/exact_sum.h"
#include "trainer/metrics/text_parts.h"

namespace dtrain {
namespace {

using Words = std::vector<std::uint32_t>;  // numbers of a Dictionary

class Dictionary {
 public:
  // Runs of letters a to z and digits of the text in lower case. Of all other letters only U+0130 and the Kelvin sign
  // have a lower case that contains one of these: an "i" with a dot above, which ends the word, and a "k".
  Words words_of(std::string_view text) {
    Words words;
    std::string word;
    const auto end_word = [&] {
      if (!word.empty()) words.push_back(numbers_.try_emplace(word, numbers_.size()).first->second);
      word.clear();
    };
    for (std::size_t at = 0; at < text.size(); ++at) {
      const char c = text[at];
      if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9')) {
        word.push_back(c);
      } else if (c >= 'A' && c <= 'Z') {
        word.push_back(static_cast<char>(c - 'A' + 'a'));
      } else if (text.substr(at).starts_with("\u212A")) {
        word.push_back('k');
        at += 2;
      } else {
        if (text.substr(at).starts_with("\u0130")) word.push_back('i');
        end_word();
      }
    }
    end_word();
    return words;
  }

 private:
  std::unordered_map<std::string, std::uint32_t> numbers_;
};

double quotient(std::int64_t part, std::size_t whole) { return static_cast<double>(part) / static_cast<double>(whole); }

double f1(double precision, double recall) {
  return precision + recall > 0 ? 2 * precision * recall / (precision + recall) : 0.0;
}

// How often each run of `n` words (1 or 2) occurs.
std::unordered_map<std::uint64_t, std::int64_t> ngrams(const Words& words, std::size_t n) {
  std::unordered_map<std::uint64_t, std::int64_t> counts;
  for (std::size_t i = 0; i + n <= words.size(); ++i) {
    ++counts[n == 1 ? words[i] : (std::uint64_t{words[i]} << 32) | words[i + 1]];
  }
  return counts;
}

double ngram_f1(const Words& prediction, const Words& reference, std::size_t n) {
  if (prediction.size() < n || reference.size() < n) return 0;
  const auto predicted = ngrams(prediction, n);
  std::int64_t shared = 0;
  for (const auto& [ngram, count] : ngrams(reference, n)) {
    const auto found = predicted.find(ngram);
    if (found != predicted.end()) shared += std::min(count, found->second);
  }
  return f1(quotient(shared, prediction.size() - n + 1), quotient(shared, reference.size() - n + 1));
}

// at(i, j): length of the longest common subsequence of the first i words of one text and the first j of the other.
class SubsequenceTable {
 public:
  SubsequenceTable(const Words& reference, const Words& prediction)
      : columns_(prediction.size() + 1), lengths_((reference.size() + 1) * columns_, 0) {
    for (std::size_t i = 1; i <= reference.size(); ++i) {
      for (std::size_t j = 1; j <= prediction.size(); ++j) {
        lengths_[i * columns_ + j] =
            reference[i - 1] == prediction[j - 1] ? at(i - 1, j - 1) + 1 : std::max(at(i - 1, j), at(i, j - 1));
      }
    }
  }
  [[nodiscard]] std::int32_t at(std::size_t i, std::size_t j) const { return lengths_[i * columns_ + j]; }
  [[nodiscard]] std::int32_t length() const { return lengths_.back(); }

 private:
  std::size_t columns_;
  std::vector<std::int32_t> lengths_;
};

double subsequence_f1(const Words& prediction, const Words& reference) {
  if (prediction.empty() || reference.empty()) return 0;
  const std::int32_t length = SubsequenceTable(reference, prediction).length();
  return f1(quotient(length, prediction.size()), quotient(length, reference.size()));
}

// Marks the words of `reference` that are in its longest common subsequence with `prediction`. Of several such
// subsequences it is the package's: from the end, and among equals by leaving out a word of the reference.
void mark_subsequence(const Words& reference, const Words& prediction, std::vector<bool>& marked) {
  const SubsequenceTable table(reference, prediction);
  std::size_t i = reference.size();
  std::size_t j = prediction.size();
  while (i > 0 && j > 0) {
    if (reference[i - 1] == prediction[j - 1]) {
      marked[i - 1] = true;
      --i;
      --j;
    } else if (table.at(i, j - 1) > table.at(i - 1, j)) {
      --j;
    } else {
      --i;
    }
  }
}

struct Sentences {
  Sentences(std::string_view text, Dictionary& dictionary) {
    for (std::size_t begin = 0; begin <= text.size();) {
      const std::size_t end = std::min(text.find('\n', begin), text.size());
      each.push_back(dictionary.words_of(text.substr(begin, end - begin)));
      size += each.back().size();
      for (const std::uint32_t word : each.back()) ++counts[word];
      begin = end + 1;
    }
  }
  std::vector<Words> each;
  std::size_t size = 0;  // in words
  std::unordered_map<std::uint32_t, std::int64_t> counts;
};

// Section 3.2: for each sentence of the reference the union of its subsequences with all predicted sentences; no word
// counts more often than it occurs in either text.
double summary_f1(Sentences prediction, Sentences reference) {
  if (prediction.size == 0 || reference.size == 0) return 0;
  std::int64_t hits = 0;
  for (const Words& sentence : reference.each) {
    std::vector<bool> marked(sentence.size(), false);
    for (const Words& predicted : prediction.each) mark_subsequence(sentence, predicted, marked);
    for (std::size_t i = 0; i < sentence.size(); ++i) {
      if (!marked[i]) continue;
      std::int64_t& left = prediction.counts[sentence[i]];
      std::int64_t& right = reference.counts[sentence[i]];
      if (left == 0 || right == 0) continue;
      --left;
      --right;
      ++hits;
    }
  }
  return f1(quotient(hits, prediction.size), quotient(hits, reference.size));
}

enum class Kind { kUnigrams, kBigrams, kSubsequence, kSummary };

double score(Kind kind, std::string_view prediction, std::string_view reference) {
  Dictionary dictionary;
  if (kind == Kind::kSummary) return summary_f1({prediction, dictionary}, {reference, dictionary});
  const Words predicted = dictionary.words_of(prediction);
  const Words wanted = dictionary.words_of(reference);
  if (kind == Kind::kSubsequence) return subsequence_f1(predicted, wanted);
  return ngram_f1(predicted, wanted, kind == Kind::kUnigrams ? 1 : 2);
}

// state: [examples, the words of an ExactSum of F1].
class Rouge final : public TextMetric {
 public:
  Rouge(std::string name, Kind kind) : TextMetric(1 + ExactSum::kWords), name_(std::move(name)), kind_(kind) {}

  [[nodiscard]] std::vector<std::pair<std::string, double>> compute() const override {
    if (state_[0] == 0) return {{name_, std::numeric_limits<double>::quiet_NaN()}};
    ExactSum::Words words{};
    std::copy_n(state_.begin() + 1, words.size(), words.begin());
    return {{name_, ExactSum::from_words(words).value() / static_cast<double>(state_[0])}};
  }

 protected:
  void add_valid(std::string_view prediction, std::span<const std::string_view> references) override {
    double best = 0;
    for (const std::string_view reference : references) best = std::max(best, score(kind_, prediction, reference));
    ExactSum term;
    term.add(best);
    const ExactSum::Words words = term.words();
    ++state_[0];
    for (std::size_t i = 0; i < words.size(); ++i) state_[1 + i] += words[i];
  }

 private:
  std::string name_;
  Kind kind_;
};

}  // namespace

std::unique_ptr<TextMetric> make_rouge(const std::string& name) {
  const Kind kind = name == "rouge1"   ? Kind::kUnigrams
                    : name == "rouge2" ? Kind::kBigrams
                    : name == "rougeL" ? Kind::kSubsequence
                                       : Kind::kSummary;
  return std::make_unique<Rouge>(name, kind);
}

}  // namespace dtrain
