// What the metrics are made of.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "trainer/metrics/metric.h"

namespace dtrain {

// Logits and labels of one batch as plain memory, checked once.
class ClassBatch {
 public:
  ClassBatch(const at::Tensor& logits, const at::Tensor& labels, std::int64_t num_labels, bool multi_label);

  [[nodiscard]] std::int64_t size() const { return size_; }

  // The first of the largest logits; NaN counts as the largest, as in numpy.
  [[nodiscard]] std::int64_t predicted_class(std::int64_t example) const;
  [[nodiscard]] std::int64_t true_class(std::int64_t example) const;

  [[nodiscard]] bool predicted(std::int64_t example, std::int64_t label) const {
    return row(logits_, example)[static_cast<std::size_t>(label)] > 0;
  }
  [[nodiscard]] bool truth(std::int64_t example, std::int64_t label) const;

  // All logits of an example.
  [[nodiscard]] std::span<const float> logits(std::int64_t example) const { return row(logits_, example); }

 private:
  [[nodiscard]] std::span<const float> row(const at::Tensor& tensor, std::int64_t example) const {
    return {tensor.const_data_ptr<float>() + example * num_labels_, static_cast<std::size_t>(num_labels_)};
  }

  std::int64_t num_labels_;
  std::int64_t size_;
  at::Tensor logits_;
  at::Tensor labels_;
};

class StatefulMetric : public Metric {
 public:
  StatefulMetric(std::size_t counts, std::size_t sums) {
    state_.counts.assign(counts, 0);
    state_.sums.assign(sums, 0.0);
  }
  [[nodiscard]] MetricState& state() override { return state_; }
  void reset() override {
    std::fill(state_.counts.begin(), state_.counts.end(), 0);
    std::fill(state_.sums.begin(), state_.sums.end(), 0.0);
    state_.values.clear();
  }

 protected:
  MetricState state_;
};

// `variant`: micro (also without one), macro, weighted or strict. `tag_names` by label.
[[nodiscard]] std::unique_ptr<Metric> make_seqeval(const std::string& variant,
                                                   const std::vector<std::string>& tag_names);
// The metrics of correlation.cpp: matthews_correlation, roc_auc (average "", "macro" or "weighted"), pearsonr,
// spearmanr.
[[nodiscard]] std::unique_ptr<Metric> make_matthews_correlation(std::int64_t num_labels, bool multi_label);
[[nodiscard]] std::unique_ptr<Metric> make_roc_auc(const std::string& average, std::int64_t num_labels,
                                                   bool multi_label);
[[nodiscard]] std::unique_ptr<Metric> make_pearsonr();
[[nodiscard]] std::unique_ptr<Metric> make_spearmanr();

}  // namespace dtrain
