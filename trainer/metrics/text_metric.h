// TextMetric: an exact accumulator over pairs of a generated text and what should have been written. Its whole state is
// a vector of int64 that add up over ranks, so results are the same bits for every split and every order. Not
// thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace dtrain {

class TextMetric {
 public:
  explicit TextMetric(std::size_t words) : state_(words, 0) {}
  virtual ~TextMetric() = default;

  // One example, with at least one reference. Ill-formed UTF-8 counts as U+FFFD.
  void add(std::string_view prediction, std::span<const std::string> references);
  // To be summed over ranks word by word; its size never changes.
  [[nodiscard]] std::vector<std::int64_t>& state() { return state_; }
  // (name, value) pairs, e.g. ("rouge1", 0.4). Without a single example bleu is 0, the others are NaN.
  [[nodiscard]] virtual std::vector<std::pair<std::string, double>> compute() const = 0;
  void reset();

 protected:
  // `prediction` and `references` are valid UTF-8.
  virtual void add_valid(std::string_view prediction, std::span<const std::string_view> references) = 0;

  std::vector<std::int64_t> state_;
};

// `spec` is one of those names of configs/metric_names.h that judge texts; else Error(kUsage).
//   bleu         sacrebleu 2.6.0, from 0 to 100: corpus BLEU, tokenizer 13a, exponential smoothing; "bleu:none" and
//                "bleu:char" choose another one, "bleu:lowercase" is 13a on lower case
//   rouge1, rouge2, rougeL, rougeLsum
//                rouge_score 0.1.2 without stemmer, from 0 to 1: the mean of F1, of each example with its best
//                reference; rougeLsum reads lines as sentences
//   exact_match  the part of predictions that equal a reference byte by byte, from 0 to 1, as evaluate's metric
[[nodiscard]] std::unique_ptr<TextMetric> make_text_metric(const std::string& spec);

}  // namespace dtrain
