#include "configs/metric_names.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>

namespace dtrain {

const std::vector<MetricName>& metric_table() {
  constexpr unsigned kLabels = kPredictsClasses | kPredictsTags;
  static const std::vector<std::string_view> kAverages = {"binary", "micro", "macro", "weighted"};
  static const std::vector<MetricName> table = {
      {"accuracy", kLabels | kPredictsWords, {}, {}},
      {"f1", kLabels, kAverages, {}},
      {"precision", kLabels, kAverages, {}},
      {"recall", kLabels, kAverages, {}},
      {"matthews_correlation", kLabels, {}, {}},
      {"roc_auc", kLabels, {"macro", "weighted"}, {}},
      {"mse", kPredictsNumbers, {}, {}},
      {"mae", kPredictsNumbers, {}, {}},
      {"pearsonr", kPredictsNumbers, {}, {}},
      {"spearmanr", kPredictsNumbers, {}, {}},
      {"perplexity", kPredictsWords, {}, {}},
      {"seqeval", kPredictsTags, {"micro", "macro", "weighted", "strict"}, {"precision", "recall", "f1", "accuracy"}},
      {"bleu", kPredictsTexts, {"none", "char", "lowercase"}, {}},
      {"rouge1", kPredictsTexts, {}, {}},
      {"rouge2", kPredictsTexts, {}, {}},
      {"rougeL", kPredictsTexts, {}, {}},
      {"rougeLsum", kPredictsTexts, {}, {}},
      {"exact_match", kPredictsTexts, {}, {}}};
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

bool predicts_texts(std::string_view spec) {
  const MetricName* known = find_metric(spec.substr(0, spec.find(':')));
  return known != nullptr && (known->predicts & kPredictsTexts) != 0;
}

std::vector<std::string> metric_result_names(std::string_view spec) {
  const std::string_view name = spec.substr(0, spec.find(':'));
  const MetricName* known = find_metric(name);
  if (known == nullptr || known->results.empty()) return {std::string(name)};
  return {known->results.begin(), known->results.end()};
}

bool less_is_better(std::string_view result) {
  constexpr std::array<std::string_view, 4> kErrors = {"loss", "perplexity", "mse", "mae"};
  return std::any_of(kErrors.begin(), kErrors.end(), [&](std::string_view error) { return result.ends_with(error); });
}

unsigned predicts_of_task(std::string_view task, bool numbers) {
  if (task == "token-classification") return kPredictsTags;
  if (task == "masked-lm" || task == "causal-lm") return kPredictsWords;
  if (task == "seq2seq-lm") return kPredictsWords | kPredictsTexts;
  return numbers ? kPredictsNumbers : kPredictsClasses;
}

}  // namespace dtrain
