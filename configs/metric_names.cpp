#include "configs/metric_names.h"

#include <algorithm>

#include <fmt/format.h>

namespace dtrain {

const std::vector<MetricName>& metric_table() {
  static const std::vector<MetricName> table = {{"accuracy", false, {}},
                                                {"f1", false, {"binary", "micro", "macro", "weighted"}},
                                                {"precision", false, {"binary", "micro", "macro", "weighted"}},
                                                {"recall", false, {"binary", "micro", "macro", "weighted"}},
                                                {"matthews_correlation", false, {}},
                                                {"roc_auc", false, {"macro", "weighted"}},
                                                {"mse", true, {}},
                                                {"mae", true, {}},
                                                {"pearsonr", true, {}},
                                                {"spearmanr", true, {}}};
  return table;
}

const MetricName* find_metric(std::string_view name) {
  const auto found = std::find_if(metric_table().begin(), metric_table().end(),
                                  [&](const MetricName& each) { return each.name == name; });
  return found == metric_table().end() ? nullptr : &*found;
}

std::string metric_names_for(bool numbers) {
  std::string names;
  for (const MetricName& each : metric_table()) {
    if (each.for_numbers == numbers) names += fmt::format("{}{}", names.empty() ? "" : ", ", each.name);
  }
  return names;
}

std::string metric_result_name(std::string_view spec) { return std::string(spec.substr(0, spec.find(':'))); }

}  // namespace dtrain
