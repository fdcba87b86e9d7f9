#include "trainer/callbacks/straggler_warning.h"

#include <algorithm>

#include "core/log.h"

namespace dtrain {
namespace {

double median(std::vector<float> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return static_cast<double>(*middle);
}

}  // namespace

std::optional<Straggler> StragglerRule::add(std::span<const float> seconds) {
  if (seconds.size() < 2) return std::nullopt;
  window_.resize(seconds.size());
  for (std::size_t rank = 0; rank < seconds.size(); ++rank) window_[rank].push_back(seconds[rank]);
  if (window_.front().size() < kWindow) return std::nullopt;

  std::vector<float> medians;
  for (std::vector<float>& steps : window_) {
    medians.push_back(static_cast<float>(median(steps)));
    steps.clear();
  }
  const auto slowest = std::max_element(medians.begin(), medians.end());
  Straggler found{.rank = static_cast<int>(slowest - medians.begin()), .seconds = static_cast<double>(*slowest)};
  medians.erase(slowest);
  found.others = median(medians);
  const bool slow = found.seconds > kRatio * found.others && found.seconds > found.others + kLeastSeconds;
  const bool again = slow && suspect_ == found.rank;
  suspect_ = slow ? std::optional(found.rank) : std::nullopt;
  if (!again || !named_.insert(found.rank).second) return std::nullopt;
  return found;
}

void StragglerWarning::on_step_end(const TrainerState& state, TrainerControl& /*control*/,
                                   const StepReport& /*report*/) {
  const std::optional<Straggler> found = rule_.add(host_.recorder().busy_by_rank());
  if (!found || !state.is_world_process_zero) return;
  log::warning(
      "rank {} is slow: {:.1f} ms of its own a step, the other ranks {:.1f} ms, and all wait for it (busy cores, a hot "
      "device, a slow disk?)",
      found->rank, found->seconds * 1e3, found->others * 1e3);
}

}  // namespace dtrain
