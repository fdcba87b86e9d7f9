// Metric: an exact accumulator over examples. Its whole state is a vector of int64 counts and one of double sums, so
// that the states of all ranks add up to the state of a single process; results do not depend on the split. Values are
// those of scikit-learn with zero_division=0. Not thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

namespace dtrain {

struct MetricState {
  std::vector<std::int64_t> counts;
  std::vector<double> sums;
};

class Metric {
 public:
  virtual ~Metric() = default;
  // logits [n, num_labels] float32 CPU; labels as in Batch. Fillers are left out by the caller. A class is predicted by
  // the largest logit (the first one of equals), a label of a multi-label problem by a logit above 0 (probability above
  // 0.5). Labels that are no class: Error(kData).
  virtual void add(const at::Tensor& logits, const at::Tensor& labels) = 0;
  // The sizes of its vectors never change.
  [[nodiscard]] virtual MetricState& state() = 0;
  // (name, value) pairs from the current state, e.g. ("accuracy", 0.9). Degenerate input gives what scikit-learn gives;
  // without a single example accuracy, mse and mae are NaN, the others 0.
  [[nodiscard]] virtual std::vector<std::pair<std::string, double>> compute() const = 0;
  virtual void reset() = 0;
};

// `spec` is a name, with an average for the second three: accuracy, mse, mae, f1, precision, recall, e.g.
// "f1:weighted". Averages: binary (class 1 of two), micro, macro, weighted. Without one it is binary, so there must be
// two classes. mse and mae are for regression (num_labels 1, or float labels [n, num_labels] with multi_label), the
// others for classes. What does not fit is Error(kUsage) with the choices. The result's name is the spec's without its
// average, as evaluate's load("f1") has it.
[[nodiscard]] std::unique_ptr<Metric> make_metric(const std::string& spec, std::int64_t num_labels, bool multi_label);

}  // namespace dtrain
