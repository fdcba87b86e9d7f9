#include "trainer/metrics/metric.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <string_view>

#include "configs/metric_names.h"
#include "core/error.h"
#include "trainer/metrics/metric_parts.h"
#include "trainer/metrics/text_metric.h"

namespace dtrain {
namespace {

double quotient(double part, double whole) { return whole == 0 ? 0.0 : part / whole; }

double mean(double total, std::int64_t count) {
  return count == 0 ? std::numeric_limits<double>::quiet_NaN() : total / static_cast<double>(count);
}

// counts: [correct, all]. With several labels an example is correct when all its labels are.
class Accuracy final : public StatefulMetric {
 public:
  Accuracy(std::int64_t num_labels, bool multi_label)
      : StatefulMetric(2, 0), num_labels_(num_labels), multi_label_(multi_label) {}

  void add(const Predictions& given) override {
    const ClassBatch batch(given.logits, given.labels, num_labels_, multi_label_);
    for (std::int64_t i = 0; i < batch.size(); ++i) {
      bool correct = true;
      if (multi_label_) {
        for (std::int64_t k = 0; k < num_labels_; ++k)
          correct = (batch.predicted(i, k) == batch.truth(i, k)) && correct;
      } else {
        correct = batch.predicted_class(i) == batch.true_class(i);
      }
      state_.counts[0] += correct ? 1 : 0;
    }
    state_.counts[1] += batch.size();
  }

  [[nodiscard]] std::vector<std::pair<std::string, double>> compute() const override {
    return {{"accuracy", mean(static_cast<double>(state_.counts[0]), state_.counts[1])}};
  }

 private:
  std::int64_t num_labels_;
  bool multi_label_;
};

enum class Average { kBinary, kMicro, kMacro, kWeighted };
enum class Score { kF1, kPrecision, kRecall };

// counts: per class [true positives, predicted, actual].
class ClassScore final : public StatefulMetric {
 public:
  ClassScore(std::string name, Score score, Average average, std::int64_t num_labels, bool multi_label)
      : StatefulMetric(3 * static_cast<std::size_t>(num_labels), 0),
        name_(std::move(name)),
        score_(score),
        average_(average),
        num_labels_(num_labels),
        multi_label_(multi_label) {}

  void add(const Predictions& given) override {
    const ClassBatch batch(given.logits, given.labels, num_labels_, multi_label_);
    for (std::int64_t i = 0; i < batch.size(); ++i) {
      if (multi_label_) {
        for (std::int64_t k = 0; k < num_labels_; ++k) count(k, batch.predicted(i, k), batch.truth(i, k));
      } else {
        const std::int64_t predicted = batch.predicted_class(i);
        const std::int64_t actual = batch.true_class(i);
        count(predicted, true, predicted == actual);
        if (predicted != actual) count(actual, false, true);
      }
    }
  }

  [[nodiscard]] std::vector<std::pair<std::string, double>> compute() const override { return {{name_, value()}}; }

 private:
  struct Tally {
    double hits = 0;
    double predicted = 0;
    double actual = 0;
  };

  void count(std::int64_t label, bool predicted, bool actual) {
    std::int64_t* tally = &state_.counts[3 * static_cast<std::size_t>(label)];
    tally[0] += predicted && actual ? 1 : 0;
    tally[1] += predicted ? 1 : 0;
    tally[2] += actual ? 1 : 0;
  }

  [[nodiscard]] Tally tally(std::int64_t label) const {
    const std::int64_t* counts = &state_.counts[3 * static_cast<std::size_t>(label)];
    return {static_cast<double>(counts[0]), static_cast<double>(counts[1]), static_cast<double>(counts[2])};
  }

  [[nodiscard]] double score(const Tally& tally) const {
    if (score_ == Score::kPrecision) return quotient(tally.hits, tally.predicted);
    if (score_ == Score::kRecall) return quotient(tally.hits, tally.actual);
    return quotient(2 * tally.hits, tally.predicted + tally.actual);
  }

  [[nodiscard]] double value() const {
    if (average_ == Average::kBinary) return score(tally(1));
    Tally all;
    double total = 0;
    double weights = 0;
    for (std::int64_t label = 0; label < num_labels_; ++label) {
      const Tally each = tally(label);
      all.hits += each.hits;
      all.predicted += each.predicted;
      all.actual += each.actual;
      // Classes that occur neither in the data nor in the predictions are no classes for scikit-learn; the columns of a
      // multi-label problem always are.
      if (!multi_label_ && each.predicted == 0 && each.actual == 0) continue;
      const double weight = average_ == Average::kWeighted ? each.actual : 1.0;
      total += weight * score(each);
      weights += weight;
    }
    return average_ == Average::kMicro ? score(all) : quotient(total, weights);
  }

  std::string name_;
  Score score_;
  Average average_;
  std::int64_t num_labels_;
  bool multi_label_;
};

// counts: [values], sums: [sum of squared or of absolute errors].
class RegressionError final : public StatefulMetric {
 public:
  RegressionError(std::string name, bool squared) : StatefulMetric(1, 1), name_(std::move(name)), squared_(squared) {}

  void add(const Predictions& given) override {
    DTRAIN_CHECK(given.logits.numel() == given.labels.numel(), "{} outputs for {} labels", given.logits.numel(),
                 given.labels.numel());
    const at::Tensor output = given.logits.to(at::kCPU, at::kFloat).contiguous();
    const at::Tensor target = given.labels.to(at::kCPU, at::kFloat).contiguous();
    for (std::int64_t i = 0; i < output.numel(); ++i) {
      const double error = static_cast<double>(output.const_data_ptr<float>()[i]) -
                           static_cast<double>(target.const_data_ptr<float>()[i]);
      state_.sums[0] += squared_ ? error * error : std::abs(error);
    }
    state_.counts[0] += output.numel();
  }

  [[nodiscard]] std::vector<std::pair<std::string, double>> compute() const override {
    return {{name_, mean(state_.sums[0], state_.counts[0])}};
  }

 private:
  std::string name_;
  bool squared_;
};

// The part of words that are predicted. counts: [right, all].
class WordAccuracy final : public StatefulMetric {
 public:
  WordAccuracy() : StatefulMetric(2, 0) {}

  void add(const Predictions& given) override {
    DTRAIN_CHECK(given.predicted.numel() == given.labels.numel(), "{} words predicted for {} labels",
                 given.predicted.numel(), given.labels.numel());
    state_.counts[0] += given.predicted.eq(given.labels).sum().item<std::int64_t>();
    state_.counts[1] += given.labels.numel();
  }

  [[nodiscard]] std::vector<std::pair<std::string, double>> compute() const override {
    return {{"accuracy", mean(static_cast<double>(state_.counts[0]), state_.counts[1])}};
  }
};

// exp of the mean loss of a label. counts: [labels], sums: [losses].
class Perplexity final : public StatefulMetric {
 public:
  Perplexity() : StatefulMetric(1, 1) {}

  void add(const Predictions& given) override {
    state_.counts[0] += given.labels.numel();
    state_.sums[0] += given.losses.sum(at::kDouble).item<double>();
  }

  [[nodiscard]] std::vector<std::pair<std::string, double>> compute() const override {
    return {{"perplexity", std::exp(mean(state_.sums[0], state_.counts[0]))}};
  }
};

// A metric of written texts. counts: its state.
class OfTexts final : public StatefulMetric {
 public:
  explicit OfTexts(const std::string& spec) : OfTexts(make_text_metric(spec)) {}

  void add(const Predictions& given) override {
    DTRAIN_CHECK(given.texts.size() == given.references.size(), "{} texts written for {} references",
                 given.texts.size(), given.references.size());
    metric_->reset();
    for (std::size_t i = 0; i < given.texts.size(); ++i) metric_->add(given.texts[i], {&given.references[i], 1});
    for (std::size_t i = 0; i < state_.counts.size(); ++i) state_.counts[i] += metric_->state()[i];
  }

  [[nodiscard]] std::vector<std::pair<std::string, double>> compute() const override {
    metric_->state() = state_.counts;
    return metric_->compute();
  }

  [[nodiscard]] bool reads_texts() const override { return true; }

 private:
  explicit OfTexts(std::unique_ptr<TextMetric> metric)
      : StatefulMetric(metric->state().size(), 0), metric_(std::move(metric)) {}

  std::unique_ptr<TextMetric> metric_;
};

void check_scope(const MetricName& metric, const MetricScope& scope) {
  const auto refuse = [&](const std::string& reason, const std::string& hint) {
    throw usage_error(fmt::format("metrics.compute: \"{}\" {}", metric.name, reason), hint);
  };
  unsigned predicts = kPredictsClasses;
  if (scope.language_model) {
    predicts = kPredictsWords | (scope.writes_texts ? kPredictsTexts : 0U);
  } else if (!scope.tag_names.empty()) {
    predicts = kPredictsTags;
  } else if (scope.multi_label) {
    predicts = kPredictsClasses | kPredictsNumbers;
  } else if (scope.num_labels == 1) {
    predicts = kPredictsNumbers;
  }
  if ((metric.predicts & predicts) != 0) return;
  const std::string hint = fmt::format("use one of {}", metric_names_for(predicts));
  if (scope.language_model) refuse("does not judge language models", hint);
  if (predicts == kPredictsNumbers) {
    refuse("is for classes, but the model predicts a number", hint + ", or set model.num_labels");
  }
  if (metric.predicts == kPredictsNumbers) {
    refuse(fmt::format("is for regression, but the model has {} classes", scope.num_labels), hint);
  }
  refuse("does not judge what this model predicts", hint);
}

// Of f1, precision and recall.
Average average_of(const std::string& spec, const std::string& name, const std::string& average,
                   std::int64_t num_labels, bool multi_label) {
  if (average == "micro") return Average::kMicro;
  if (average == "macro") return Average::kMacro;
  if (average == "weighted") return Average::kWeighted;
  if (multi_label || num_labels != 2) {
    throw usage_error(fmt::format("metrics.compute: \"{}\" is for two classes, but the model has {}{}", spec,
                                  num_labels, multi_label ? " labels of which several may hold" : ""),
                      fmt::format("write \"{0}:micro\", \"{0}:macro\" or \"{0}:weighted\"", name));
  }
  return Average::kBinary;
}

}  // namespace

std::unique_ptr<Metric> make_metric(const std::string& spec, const MetricScope& scope) {
  const std::size_t colon = spec.find(':');
  const std::string name = spec.substr(0, colon);
  const std::optional<std::string> average =
      colon == std::string::npos ? std::nullopt : std::optional<std::string>(spec.substr(colon + 1));
  const MetricName* known = find_metric(name);
  if (known == nullptr) {
    std::vector<std::string_view> names;
    for (const MetricName& each : metric_table()) names.push_back(each.name);
    const std::string nearest = nearest_name(name, names);
    throw usage_error(fmt::format("metrics.compute: unknown metric \"{}\"", spec),
                      nearest.empty() ? fmt::format("known: {}", fmt::join(names, ", "))
                                      : fmt::format("did you mean \"{}\"?", nearest));
  }
  if (average && known->variants.empty()) {
    throw usage_error(fmt::format("metrics.compute: \"{}\" has no variants", name), fmt::format("write \"{}\"", name));
  }
  check_scope(*known, scope);
  if (predicts_texts(name)) return std::make_unique<OfTexts>(spec);
  const std::int64_t num_labels = scope.num_labels;
  const bool multi_label = scope.multi_label;
  if (name == "perplexity") return std::make_unique<Perplexity>();
  if (name == "mse" || name == "mae") return std::make_unique<RegressionError>(name, name == "mse");
  if (name == "pearsonr") return make_pearsonr();
  if (name == "spearmanr") return make_spearmanr();
  if (name == "accuracy" && scope.language_model) return std::make_unique<WordAccuracy>();
  if (name == "accuracy") return std::make_unique<Accuracy>(num_labels, multi_label);
  if (name == "matthews_correlation") return make_matthews_correlation(num_labels, multi_label);
  if (average && std::find(known->variants.begin(), known->variants.end(), *average) == known->variants.end()) {
    throw usage_error(fmt::format("metrics.compute: unknown variant in \"{}\"", spec),
                      fmt::format("known: {}", fmt::join(known->variants, ", ")));
  }
  if (name == "seqeval") {
    DTRAIN_CHECK(static_cast<std::int64_t>(scope.tag_names.size()) == num_labels, "{} names of {} labels",
                 scope.tag_names.size(), num_labels);
    return make_seqeval(average.value_or("micro"), scope.tag_names);
  }
  if (name == "roc_auc") return make_roc_auc(average.value_or(""), num_labels, multi_label);
  const Average how = average_of(spec, name, average.value_or("binary"), num_labels, multi_label);
  const Score score = name == "f1" ? Score::kF1 : name == "precision" ? Score::kPrecision : Score::kRecall;
  return std::make_unique<ClassScore>(name, score, how, num_labels, multi_label);
}

}  // namespace dtrain
