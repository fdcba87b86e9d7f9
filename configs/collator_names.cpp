#include "configs/collator_names.h"

#include <algorithm>
#include <map>

namespace dtrain {
namespace {

const std::map<std::string, std::vector<std::string>>& table() {
  static const std::map<std::string, std::vector<std::string>> by_task = {
      {"sequence-classification", {"default", "padding"}},
      {"token-classification", {"token_classification"}},
      {"masked-lm", {"language_modeling"}},
      {"causal-lm", {"language_modeling", "flattening"}},
      {"seq2seq-lm", {"seq2seq"}}};
  return by_task;
}

std::vector<std::string> all_names() {
  std::vector<std::string> names = {"auto"};
  for (const auto& [task, collators] : table()) {
    for (const std::string& name : collators) {
      if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
    }
  }
  return names;
}

}  // namespace

const std::vector<std::string>& collators_of_task(const std::string& task) { return table().at(task); }

const std::vector<std::string>& collator_names() {
  static const std::vector<std::string> names = all_names();
  return names;
}

bool is_collator_name(std::string_view name) {
  return std::find(collator_names().begin(), collator_names().end(), name) != collator_names().end();
}

}  // namespace dtrain
