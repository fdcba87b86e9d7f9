// Metrics about order and correlation: matthews_correlation, roc_auc, pearsonr, spearmanr.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "core/error.h"
#include "trainer/metrics/metric_parts.h"

namespace dtrain {
namespace {

constexpr double kNotDefined = std::numeric_limits<double>::quiet_NaN();

// Gorodkin 2004, as scikit-learn computes it. counts: [correct, all], then per class [predicted, actual].
class MatthewsCorrelation final : public StatefulMetric {
 public:
  explicit MatthewsCorrelation(std::int64_t num_labels)
      : StatefulMetric(2 + 2 * static_cast<std::size_t>(num_labels), 0), num_labels_(num_labels) {}

  void add(const Predictions& given) override {
    const ClassBatch batch(given.logits, given.labels, num_labels_, /*multi_label=*/false);
    for (std::int64_t i = 0; i < batch.size(); ++i) {
      const auto predicted = static_cast<std::size_t>(batch.predicted_class(i));
      const auto actual = static_cast<std::size_t>(batch.true_class(i));
      state_.counts[0] += predicted == actual ? 1 : 0;
      ++state_.counts[2 + 2 * predicted];
      ++state_.counts[3 + 2 * actual];
    }
    state_.counts[1] += batch.size();
  }

  [[nodiscard]] std::vector<std::pair<std::string, double>> compute() const override {
    const auto all = static_cast<double>(state_.counts[1]);
    double both = 0;
    double predicted = 0;
    double actual = 0;
    for (std::size_t i = 2; i < state_.counts.size(); i += 2) {
      const auto p = static_cast<double>(state_.counts[i]);
      const auto t = static_cast<double>(state_.counts[i + 1]);
      both += p * t;
      predicted += p * p;
      actual += t * t;
    }
    const double product = (all * all - predicted) * (all * all - actual);
    const double value = product == 0 ? 0.0 : (static_cast<double>(state_.counts[0]) * all - both) / std::sqrt(product);
    return {{"matthews_correlation", value}};
  }

 private:
  std::int64_t num_labels_;
};

// The chance that a positive example has a higher score than a negative one, ties counting half. NaN when there is none
// of either kind or a score is NaN.
double area(std::vector<std::pair<double, bool>> scored) {
  if (std::any_of(scored.begin(), scored.end(), [](const auto& each) { return std::isnan(each.first); })) {
    return kNotDefined;
  }
  std::sort(scored.begin(), scored.end());
  std::int64_t negatives = 0;
  std::int64_t positives = 0;
  std::int64_t twice_won = 0;  // pairs, twice
  for (std::size_t begin = 0; begin < scored.size();) {
    std::size_t end = begin;
    std::int64_t tied_positives = 0;
    for (; end < scored.size() && scored[end].first == scored[begin].first; ++end) {
      tied_positives += scored[end].second ? 1 : 0;
    }
    const std::int64_t tied_negatives = static_cast<std::int64_t>(end - begin) - tied_positives;
    twice_won += tied_positives * (2 * negatives + tied_negatives);
    positives += tied_positives;
    negatives += tied_negatives;
    begin = end;
  }
  if (positives == 0 || negatives == 0) return kNotDefined;
  return static_cast<double>(twice_won) / 2 / (static_cast<double>(positives) * static_cast<double>(negatives));
}

// values: per example its logits and its class, or its logits and its labels.
class RocAuc final : public StatefulMetric {
 public:
  RocAuc(bool weighted, std::int64_t num_labels, bool multi_label)
      : StatefulMetric(0, 0), weighted_(weighted), num_labels_(num_labels), multi_label_(multi_label) {}

  void add(const Predictions& given) override {
    const ClassBatch batch(given.logits, given.labels, num_labels_, multi_label_);
    for (std::int64_t i = 0; i < batch.size(); ++i) {
      const std::span<const float> row = batch.logits(i);
      state_.values.insert(state_.values.end(), row.begin(), row.end());
      if (multi_label_) {
        for (std::int64_t k = 0; k < num_labels_; ++k) state_.values.push_back(batch.truth(i, k) ? 1.0F : 0.0F);
      } else {
        state_.values.push_back(static_cast<float>(batch.true_class(i)));
      }
    }
  }

  [[nodiscard]] std::vector<std::pair<std::string, double>> compute() const override { return {{"roc_auc", value()}}; }
  [[nodiscard]] bool keeps_values() const override { return true; }

 private:
  [[nodiscard]] double value() const {
    const auto labels = static_cast<std::size_t>(num_labels_);
    const std::size_t width = labels + (multi_label_ ? labels : 1);
    const bool binary = !multi_label_ && num_labels_ == 2;
    double total = 0;
    double weights = 0;
    for (std::size_t k = binary ? 1 : 0; k < labels; ++k) {
      std::vector<std::pair<double, bool>> scored;
      double positives = 0;
      for (std::size_t at = 0; at < state_.values.size(); at += width) {
        const float* row = state_.values.data() + at;
        const bool truth = multi_label_ ? row[labels + k] == 1 : row[labels] == static_cast<float>(k);
        scored.emplace_back(score(row, k), truth);
        positives += truth ? 1 : 0;
      }
      const double weight = weighted_ ? positives : 1.0;
      total += weight * area(std::move(scored));
      weights += weight;
    }
    return total / weights;
  }

  // Rises with the probability of label k.
  [[nodiscard]] double score(const float* row, std::size_t k) const {
    if (multi_label_) return static_cast<double>(row[k]);
    if (num_labels_ == 2) return static_cast<double>(row[1]) - static_cast<double>(row[0]);
    const auto end = row + num_labels_;
    const double largest = static_cast<double>(*std::max_element(row, end));
    double sum = 0;
    for (const float* each = row; each < end; ++each) sum += std::exp(static_cast<double>(*each) - largest);
    return std::exp(static_cast<double>(row[k]) - largest) / sum;
  }

  bool weighted_;
  std::int64_t num_labels_;
  bool multi_label_;
};

// Of two columns in double; NaN when one of them is constant, has a NaN or fewer than two values.
double pearson(const std::vector<double>& x, const std::vector<double>& y) {
  const auto count = static_cast<double>(x.size());
  if (x.size() < 2) return kNotDefined;
  const double mean_x = std::accumulate(x.begin(), x.end(), 0.0) / count;
  const double mean_y = std::accumulate(y.begin(), y.end(), 0.0) / count;
  double xy = 0;
  double xx = 0;
  double yy = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    xy += (x[i] - mean_x) * (y[i] - mean_y);
    xx += (x[i] - mean_x) * (x[i] - mean_x);
    yy += (y[i] - mean_y) * (y[i] - mean_y);
  }
  const auto constant = [](const std::vector<double>& column) {
    return std::all_of(column.begin(), column.end(), [&](double each) { return each == column.front(); });
  };
  if (constant(x) || constant(y)) return kNotDefined;
  const double value = xy / std::sqrt(xx) / std::sqrt(yy);
  return std::isnan(value) ? value : std::clamp(value, -1.0, 1.0);
}

// 1 for the smallest; equals share the mean of their places.
std::vector<double> ranks_of(const std::vector<double>& values) {
  std::vector<std::size_t> order(values.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return values[a] < values[b]; });
  std::vector<double> ranks(values.size());
  for (std::size_t begin = 0; begin < order.size();) {
    std::size_t end = begin;
    while (end < order.size() && values[order[end]] == values[order[begin]]) ++end;
    const double shared = static_cast<double>(begin + end + 1) / 2;
    for (; begin < end; ++begin) ranks[order[begin]] = shared;
  }
  return ranks;
}

// values: pairs of output and target.
class Correlation final : public StatefulMetric {
 public:
  explicit Correlation(bool of_ranks) : StatefulMetric(0, 0), of_ranks_(of_ranks) {}

  void add(const Predictions& given) override {
    DTRAIN_CHECK(given.logits.numel() == given.labels.numel(), "{} outputs for {} labels", given.logits.numel(),
                 given.labels.numel());
    const at::Tensor output = given.logits.to(at::kCPU, at::kFloat).contiguous();
    const at::Tensor target = given.labels.to(at::kCPU, at::kFloat).contiguous();
    for (std::int64_t i = 0; i < output.numel(); ++i) {
      state_.values.push_back(output.const_data_ptr<float>()[i]);
      state_.values.push_back(target.const_data_ptr<float>()[i]);
    }
  }

  [[nodiscard]] std::vector<std::pair<std::string, double>> compute() const override {
    const std::string name = of_ranks_ ? "spearmanr" : "pearsonr";
    if (std::any_of(state_.values.begin(), state_.values.end(), [](float each) { return std::isnan(each); })) {
      return {{name, kNotDefined}};
    }
    // In one order, however the examples were dealt to ranks: sums of floating numbers depend on it.
    std::vector<std::pair<float, float>> pairs;
    for (std::size_t i = 0; i < state_.values.size(); i += 2) {
      pairs.emplace_back(state_.values[i], state_.values[i + 1]);
    }
    std::sort(pairs.begin(), pairs.end());
    std::vector<double> x;
    std::vector<double> y;
    for (const auto& [output, target] : pairs) {
      x.push_back(static_cast<double>(output));
      y.push_back(static_cast<double>(target));
    }
    return {{name, of_ranks_ ? pearson(ranks_of(x), ranks_of(y)) : pearson(x, y)}};
  }
  [[nodiscard]] bool keeps_values() const override { return true; }

 private:
  bool of_ranks_;
};

}  // namespace

std::unique_ptr<Metric> make_matthews_correlation(std::int64_t num_labels, bool multi_label) {
  if (multi_label) {
    throw usage_error("metrics.compute: \"matthews_correlation\" is for one class an example, not for several labels",
                      "use f1, precision or recall with an average");
  }
  return std::make_unique<MatthewsCorrelation>(num_labels);
}

std::unique_ptr<Metric> make_roc_auc(const std::string& average, std::int64_t num_labels, bool multi_label) {
  if (!average.empty() && !multi_label && num_labels == 2) {
    throw usage_error(fmt::format("metrics.compute: \"roc_auc:{}\" of two classes, which have one area", average),
                      "write \"roc_auc\"");
  }
  return std::make_unique<RocAuc>(average == "weighted", num_labels, multi_label);
}

std::unique_ptr<Metric> make_pearsonr() { return std::make_unique<Correlation>(false); }
std::unique_ptr<Metric> make_spearmanr() { return std::make_unique<Correlation>(true); }

}  // namespace dtrain
