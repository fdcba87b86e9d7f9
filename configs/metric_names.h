// The metrics that metrics.compute may name: one table for the checks of the configuration and for the trainer.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace dtrain {

// What a model predicts, as a set of bits.
enum Predicts : unsigned {
  kPredictsClasses = 1,
  kPredictsNumbers = 2,
  kPredictsTags = 4,    // a class for each word of a sentence
  kPredictsWords = 8,   // the next or the hidden token of a text
  kPredictsTexts = 16,  // whole texts, by generation
};

struct MetricName {
  std::string_view name;                   // of the Hugging Face evaluate library
  unsigned predicts;                       // the Predicts that it can judge
  std::vector<std::string_view> variants;  // averages and the like that may follow a colon
  std::vector<std::string_view> results;   // what evaluation calls its values; empty: the name
};

[[nodiscard]] const std::vector<MetricName>& metric_table();
// nullptr: there is none of this name.
[[nodiscard]] const MetricName* find_metric(std::string_view name);
// "accuracy, f1, ..." of those for one of `predicts`.
[[nodiscard]] std::string metric_names_for(unsigned predicts);
// Whether a metric of metrics.compute judges generated texts.
[[nodiscard]] bool predicts_texts(std::string_view spec);
// "f1:weighted" -> "f1"; "seqeval" -> "precision", "recall", "f1", "accuracy".
[[nodiscard]] std::vector<std::string> metric_result_names(std::string_view spec);
// Whether less of it is better: losses, perplexity and errors, with or without "eval_".
[[nodiscard]] bool less_is_better(std::string_view result);
// What the models of a task predict. `numbers`: a regression.
[[nodiscard]] unsigned predicts_of_task(std::string_view task, bool numbers);

}  // namespace dtrain
