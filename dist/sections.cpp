#include "dist/sections.h"

#include <algorithm>

namespace dtrain {

std::string_view section_name(Section section) {
  static constexpr std::array<std::string_view, 6> kNames = {"init", "load", "step", "eval", "save", "finalize"};
  return kNames[static_cast<std::size_t>(section)];
}

void LearnedDeadline::add(double seconds) {
  observed_[count_++ % kRemembered] = seconds;
  // The percentile moves slowly: looking at all of them now and then is enough.
  if (count_ > kWarmUpSteps && count_ % kWarmUpSteps != 0) return;
  std::array<double, kRemembered> sorted = observed_;
  const std::size_t used = std::min(count_, kRemembered);
  const auto nth = sorted.begin() + static_cast<std::ptrdiff_t>((used * 99 + 99) / 100 - 1);
  std::nth_element(sorted.begin(), nth, sorted.begin() + static_cast<std::ptrdiff_t>(used));
  percentile_ = *nth;
}

double LearnedDeadline::seconds(const SectionLimits& limits) const {
  const double learned = std::max(kFloorSeconds, kFactor * percentile_);
  return std::min(limits.longest, count_ < kWarmUpSteps ? std::max(limits.init, learned) : learned);
}

void Sections::set_limits(const SectionLimits& limits) {
  const std::lock_guard lock(mutex_);
  limits_ = limits;
}

std::size_t Sections::open(Section section, double now) {
  const std::lock_guard lock(mutex_);
  for (std::size_t i = 0; i < kSlots; ++i) {
    if (slots_[i].used) continue;
    slots_[i] = {.used = true, .section = section, .number = opened_++, .since = now};
    return i;
  }
  return kSlots;  // more than anybody nests: not watched
}

void Sections::progress(Section section, double now) {
  const std::lock_guard lock(mutex_);
  for (Slot& slot : slots_) {
    if (slot.used && slot.section == section) slot.since = now;
  }
}

void Sections::close(std::size_t handle, double now) {
  const std::lock_guard lock(mutex_);
  if (handle >= kSlots) return;
  Slot& slot = slots_[handle];
  slot.used = false;
  if (slot.section == Section::kStep) learned_.add(now - slot.since);
}

double Sections::limit_of(Section section) const {
  switch (section) {
    case Section::kInit:
    case Section::kLoad:
      return limits_.init;
    case Section::kStep:
      return limits_.step.value_or(learned_.seconds(limits_));
    case Section::kEval:
      // An evaluation has larger batches, and ends with collectives of their own kind.
      return limits_.eval.value_or(limits_.step.value_or(std::max(limits_.init, learned_.seconds(limits_))));
    case Section::kSave:
    case Section::kFinalize:
      return limits_.save;
  }
  return limits_.longest;
}

Sections::Open Sections::describe(const Slot& slot, double now) const {
  return {.section = slot.section, .seconds = now - slot.since, .limit = limit_of(slot.section)};
}

Sections::List Sections::all(double now) const {
  const std::lock_guard lock(mutex_);
  std::array<Slot, kSlots> slots = slots_;
  const auto end = std::partition(slots.begin(), slots.end(), [](const Slot& slot) { return slot.used; });
  std::sort(slots.begin(), end, [](const Slot& a, const Slot& b) { return a.number < b.number; });
  List list;
  for (auto slot = slots.begin(); slot != end; ++slot) list.open[list.count++] = describe(*slot, now);
  return list;
}

std::optional<Sections::Open> Sections::expired(double now, bool waiting) const {
  const std::lock_guard lock(mutex_);
  for (const Slot& slot : slots_) {
    if (!slot.used) continue;
    Open open = describe(slot, now);
    if (waiting && slot.section == Section::kLoad) open.limit = std::max(open.limit, limits_.longest);
    if (open.seconds > open.limit) return open;
  }
  return std::nullopt;
}

bool Sections::any_slow(double now) const {
  const std::lock_guard lock(mutex_);
  return std::any_of(slots_.begin(), slots_.end(),
                     [&](const Slot& slot) { return slot.used && now - slot.since > limit_of(slot.section) / 2; });
}

bool Sections::none_open() const {
  const std::lock_guard lock(mutex_);
  return std::none_of(slots_.begin(), slots_.end(), [](const Slot& slot) { return slot.used; });
}

}  // namespace dtrain
