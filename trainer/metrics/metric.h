// Metric: an exact accumulator over examples. Its whole state is a vector of int64 counts and one of double sums, which
// add up over ranks, and one of float values, which follow each other; results depend neither on the split nor on the
// order. Values are those of scikit-learn with zero_division=0 and of scipy. Not thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

namespace dtrain {

struct MetricState {
  std::vector<std::int64_t> counts;
  std::vector<double> sums;
  std::vector<float> values;  // of single examples, where sums do not tell enough
};

// What a model says about one batch, on the CPU. Fillers are left out by the caller.
struct Predictions {
  at::Tensor logits;                                // [labels, num_labels] float32; undefined for language models
  at::Tensor labels;                                // as in Batch
  at::Tensor predicted = {};                        // [labels] int64: the word that a language model predicts
  at::Tensor losses = {};                           // [examples] float32: of all labels of an example
  std::span<const std::int64_t> label_counts = {};  // of each example; empty: one each
  std::vector<std::string> texts = {};              // [examples]: what the model writes, with predict_with_generate
  std::vector<std::string> references = {};         // [examples]: what it should write
};

class Metric {
 public:
  virtual ~Metric() = default;
  // A class is predicted by the largest logit (the first one of equals), a label of a multi-label problem by a logit
  // above 0 (probability above 0.5). Labels that are no class: Error(kData).
  virtual void add(const Predictions& batch) = 0;
  // The sizes of counts and sums never change.
  [[nodiscard]] virtual MetricState& state() = 0;
  // (name, value) pairs from the current state, e.g. ("accuracy", 0.9). Degenerate input gives what scikit-learn gives;
  // without a single example accuracy, mse and mae are NaN, and so are correlations and areas that are not defined; the
  // others are 0.
  [[nodiscard]] virtual std::vector<std::pair<std::string, double>> compute() const = 0;
  virtual void reset() = 0;
  // Whether its state has values.
  [[nodiscard]] virtual bool keeps_values() const { return false; }
  // Whether it looks at Predictions::texts.
  [[nodiscard]] virtual bool reads_texts() const { return false; }
};

// What a metric must know of the model.
struct MetricScope {
  std::int64_t num_labels = 2;
  bool multi_label = false;
  bool language_model = false;
  bool writes_texts = false;                // besides
  std::vector<std::string> tag_names = {};  // of token classification, by label; else empty
};

// `spec` is a name of configs/metric_names.h, some with an average, e.g. "f1:weighted". f1, precision and recall:
// binary (class 1 of two, also without an average), micro, macro, weighted. roc_auc: of class 1 of two; of more classes
// each against the others, and of several labels each, macro (also without an average) or weighted. Those for numbers
// want regression (num_labels 1, or float labels [n, num_labels] with multi_label), perplexity a language model, which
// has accuracy besides, the others classes. seqeval is for token classification: precision, recall and f1 of the
// entities that the tags spell, and accuracy of the tags, as the package seqeval 1.2.2 has them; micro (also without a
// variant), macro and weighted over types of entities, strict: IOB2 to the letter, micro. It takes sentences one by
// one: an entity never reaches back into the one before, as seqeval lets it with labels of a single letter. What does
// not fit is Error(kUsage) with the choices. The result's name is the spec's without its variant, as evaluate's
// load("f1") has it.
[[nodiscard]] std::unique_ptr<Metric> make_metric(const std::string& spec, const MetricScope& scope);

}  // namespace dtrain
