#include "trainer/kernels/shortcuts.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdlib>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include "core/error.h"

namespace dtrain {
namespace {

constexpr std::array<std::pair<std::string_view, Shortcut>, 4> kNames = {{{"attention", Shortcut::kAttention},
                                                                          {"dense", Shortcut::kDense},
                                                                          {"read_tokens", Shortcut::kReadTokens},
                                                                          {"block_cache", Shortcut::kBlockCache}}};

std::array<bool, kNames.size()> read_environment() {
  std::array<bool, kNames.size()> used;
  used.fill(true);
  const char* value = std::getenv("DTRAIN_WITHOUT");
  std::string_view rest = value != nullptr ? value : "";
  while (!rest.empty()) {
    const std::string_view name = rest.substr(0, rest.find(','));
    rest.remove_prefix(std::min(rest.size(), name.size() + 1));
    bool known = false;
    for (const auto& [each, shortcut] : kNames) {
      if (each != name) continue;
      used[static_cast<std::size_t>(shortcut)] = false;
      known = true;
    }
    if (!known) {
      throw usage_error(fmt::format("environment variable DTRAIN_WITHOUT: there is no \"{}\"", name),
                        "use attention, dense, read_tokens or block_cache, separated by commas, or unset it");
    }
  }
  return used;
}

}  // namespace

bool uses(Shortcut shortcut) {
  static const auto used = read_environment();
  return used[static_cast<std::size_t>(shortcut)];
}

}  // namespace dtrain
