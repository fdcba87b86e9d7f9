#include "configs/group_settings.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <string_view>

#include <fmt/ranges.h>

#include "core/error.h"

namespace dtrain {
namespace {

constexpr std::array<std::string_view, 3> kKeys = {"pattern", "learning_rate", "weight_decay"};
constexpr double kLargest = 1e6;  // as of training.learning_rate and training.weight_decay

std::optional<double> number(const Json& table, const char* key, std::size_t group) {
  const auto found = table.find(key);
  if (found == table.end()) return std::nullopt;
  const double value = found->is_number() ? found->get<double>() : -1;
  if (!(value >= 0 && value <= kLargest)) {
    throw usage_error(
        fmt::format("group {}: {} = {} is not a number from 0 to {:.0f}", group, key, found->dump(), kLargest));
  }
  return value;
}

}  // namespace

std::vector<ParameterGroup> parameter_groups(const std::vector<Json>& tables) {
  std::vector<ParameterGroup> groups;
  for (const Json& table : tables) {
    const std::size_t group = groups.size() + 1;
    for (const auto& [key, value] : table.items()) {
      if (std::find(kKeys.begin(), kKeys.end(), key) != kKeys.end()) continue;
      const std::string nearest = nearest_name(key, kKeys);
      throw usage_error(fmt::format("group {}: unknown key \"{}\"", group, key),
                        nearest.empty() ? fmt::format("known: {}", fmt::join(kKeys, ", "))
                                        : fmt::format("did you mean \"{}\"?", nearest));
    }
    const auto pattern = table.find("pattern");
    if (pattern == table.end() || !pattern->is_string() || *pattern == "") {
      throw usage_error(fmt::format("group {}: needs a pattern, in quotes", group), "write pattern = \"classifier.*\"");
    }
    ParameterGroup& added = groups.emplace_back();
    added.pattern = pattern->get<std::string>();
    added.learning_rate = number(table, "learning_rate", group);
    added.weight_decay = number(table, "weight_decay", group);
    if (!added.learning_rate && !added.weight_decay) {
      throw usage_error(fmt::format("group {}: sets neither learning_rate nor weight_decay", group),
                        "set at least one of them, or remove the group");
    }
  }
  return groups;
}

}  // namespace dtrain
