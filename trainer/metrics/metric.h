// Metric: an exact accumulator over examples. Its whole state is a vector of int64 counts and one of double sums, so that
// the states of all ranks add up to the state of a single process; results do not depend on the split.
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
  // logits [n, num_labels] float32 CPU; labels as in Batch. Fillers are left out by the caller.
  virtual void add(const at::Tensor& logits, const at::Tensor& labels) = 0;
  [[nodiscard]] virtual MetricState& state() = 0;
  // (name, value) pairs from the current state, e.g. ("accuracy", 0.9). Degenerate input gives what scikit-learn gives.
  [[nodiscard]] virtual std::vector<std::pair<std::string, double>> compute() const = 0;
  virtual void reset() = 0;
};

// `spec` is "accuracy", "f1:weighted", "precision:macro", ...; num_labels and the problem type fix the sizes.
// Unknown names are Error(kUsage) with the known ones. Result keys: the name, as evaluate's load("f1") gives ("f1").
[[nodiscard]] std::unique_ptr<Metric> make_metric(const std::string& spec, std::int64_t num_labels, bool multi_label);

}  // namespace dtrain
