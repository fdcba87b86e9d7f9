#include "trainer/optim/parameter_groups.h"

#include <algorithm>
#include <string_view>

#include <fnmatch.h>

#include "core/error.h"

namespace dtrain {
namespace {

std::string lower_case(std::string text) {
  for (char& c : text) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return text;
}

bool matches(const std::string& pattern, const std::string& name) {
  return ::fnmatch(pattern.c_str(), name.c_str(), 0) == 0;
}

// The name that somebody who wrote `pattern` may have meant: the one that shares the longest piece of text with it.
std::string likely_name(const std::string& pattern, const std::vector<std::string>& names) {
  if (std::string near = nearest_name(pattern, names); !near.empty()) return near;
  std::string best;
  std::size_t longest = 0;
  for (const std::string& name : names) {
    for (std::size_t start = 0; start < pattern.size(); ++start) {
      std::size_t length = longest;
      while (start + length < pattern.size() && name.find(pattern.substr(start, length + 1)) != std::string::npos) {
        ++length;
        best = name;
      }
      longest = std::max(longest, length);
    }
  }
  return best.empty() && !names.empty() ? names.front() : best;
}

}  // namespace

bool name_is_decayed(const std::string& name) {
  const std::string lower = lower_case(name);
  for (const std::string_view part : {"bias", "layernorm", "rmsnorm"}) {
    if (lower.find(part) != std::string::npos) return false;
  }
  // A dotted component that is "norm" or ends in "_norm".
  std::string_view rest = lower;
  while (true) {
    const std::size_t dot = rest.find('.');
    const std::string_view component = rest.substr(0, dot);
    if (component == "norm" || component.ends_with("_norm")) return false;
    if (dot == std::string_view::npos) return true;
    rest.remove_prefix(dot + 1);
  }
}

std::vector<bool> matching_names(const std::vector<std::string>& patterns, const std::vector<std::string>& names,
                                 const std::string& setting) {
  std::vector<bool> matched(names.size(), false);
  for (const std::string& pattern : patterns) {
    bool any = false;
    for (std::size_t i = 0; i < names.size(); ++i) {
      if (!matches(pattern, names[i])) continue;
      matched[i] = true;
      any = true;
    }
    if (any) continue;
    throw usage_error(
        fmt::format("{}: \"{}\" matches no parameter", setting, pattern),
        fmt::format("the names are those in model.safetensors, for example \"{}\"", likely_name(pattern, names)));
  }
  return matched;
}

void assign_groups(std::vector<NamedParameter>& parameters, const std::vector<GroupOptions>& groups) {
  std::vector<std::string> names;
  for (const NamedParameter& parameter : parameters) names.push_back(parameter.name);
  for (std::size_t g = 0; g < groups.size(); ++g) {
    const std::string setting = fmt::format("training.parameter_groups: group {}", g + 1);
    const std::vector<bool> matched = matching_names({groups[g].pattern}, names, setting);
    bool any = false;
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      if (!matched[i] || parameters[i].group != 0) continue;
      parameters[i].group = g + 1;
      parameters[i].weight_decay = groups[g].weight_decay;
      any = true;
    }
    if (!any) {
      throw usage_error(
          fmt::format("{}: all that \"{}\" matches belongs to the groups before it", setting, groups[g].pattern),
          "the first match counts: move this group up, or remove it");
    }
  }
}

}  // namespace dtrain
