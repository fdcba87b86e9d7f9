// The metrics that metrics.compute may name: one table for the checks of the configuration and for the trainer.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace dtrain {

struct MetricName {
  std::string_view name;                   // of the Hugging Face evaluate library, and of the result
  bool for_numbers;                        // regression; otherwise classes
  std::vector<std::string_view> averages;  // that may follow a colon
};

[[nodiscard]] const std::vector<MetricName>& metric_table();
// nullptr: there is none of this name.
[[nodiscard]] const MetricName* find_metric(std::string_view name);
// "accuracy, f1, ..." of those for numbers or for classes.
[[nodiscard]] std::string metric_names_for(bool numbers);
// "f1:weighted" -> "f1".
[[nodiscard]] std::string metric_result_name(std::string_view spec);

}  // namespace dtrain
