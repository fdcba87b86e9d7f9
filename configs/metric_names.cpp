#include "configs/metric_names.h"

#include <algorithm>

#include <fmt/format.h>

namespace dtrain {

const std::vector<MetricName>& metric_table() {
  constexpr unsigned kLabels = kPredictsClasses | kPredictsTags;
  static const std::vector<std::string_view> kAverages = {"binary", "micro", "macro", "weighted"};
  static const std::vector<MetricName> table = {{"accuracy", kLabels | kPredictsWords, {}, {}},
                                                {"f1", kLabels, kAverages, {}},
                                                {"precision", kLabels, kAverages, {}},
                                                {"recall", kLabels, kAverages, {}},
                                                {"matthews_correlation", kLabels, {}, {}},
                                                {"roc_auc", kLabels, {"macro", "weighted"}, {}},
                                                {"mse", kPredictsNumbers, {}, {}},
                                                {"mae", kPredictsNumbers, {}, {}},
                                                {"pearsonr", kPredictsNumbers, {}, {}},
                                                {"spearmanr", kPredictsNumbers, {}, {}},
                                                {"perplexity", kPredictsWords, {}, {}}};
  return table;
}

const MetricName* find_metric(std::string_view name) {
  const auto found = std::find_if(metric_table().begin(), metric_table().end(),
                                  [&](const MetricName& each) { return each.name == name; });
  return found == metric_table().end() ? nullptr : &*found;
}

std::string metric_names_for(unsigned predicts) {
  std::string names;
  for (const MetricName& each : metric_table()) {
    if ((each.predicts & predicts) != 0) names += fmt::format("{}{}", names.empty() ? "" : ", ", each.name);
  }
  return names;
}

std::vector<std::string> metric_result_names(std::string_view spec) {
  const std::string_view name = spec.substr(0, spec.find(':'));
  const MetricName* known = find_metric(name);
  if (known == nullptr || known->results.empty()) return {std::string(name)};
  return {known->results.begin(), known->results.end()};
}

unsigned predicts_of_task(std::string_view task, bool numbers) {
  if (task == "token-classification") return kPredictsTags;
  if (task == "masked-lm" || task == "causal-lm") return kPredictsWords;
  if (task == "seq2seq-lm") return kPredictsWords | kPredictsTexts;
  return numbers ? kPredictsNumbers : kPredictsClasses;
}

}  // namespace dtrain
