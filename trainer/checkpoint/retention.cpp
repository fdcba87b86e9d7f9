#include "trainer/checkpoint/retention.h"

#include <algorithm>

namespace dtrain {

std::vector<std::int64_t> steps_to_delete(std::vector<std::int64_t> published, std::optional<std::int64_t> best,
                                          std::int64_t limit) {
  std::vector<std::int64_t> victims;
  if (limit <= 0 || published.empty()) return victims;
  std::sort(published.begin(), published.end());
  published.erase(std::unique(published.begin(), published.end()), published.end());
  const std::int64_t last = published.back();
  std::size_t remaining = published.size();
  for (const std::int64_t step : published) {
    if (remaining <= static_cast<std::size_t>(limit)) break;
    if (step == last || step == best) continue;
    victims.push_back(step);
    --remaining;
  }
  return victims;
}

}  // namespace dtrain
