#include "trainer/optim/parameter_groups.h"

#include <string_view>

namespace dtrain {
namespace {

std::string lower_case(std::string text) {
  for (char& c : text) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return text;
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

}  // namespace dtrain
