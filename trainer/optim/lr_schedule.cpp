#include "trainer/optim/lr_schedule.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <string_view>
#include <vector>

#include "core/error.h"

namespace dtrain {
namespace {

struct Known {
  std::string_view name;
  std::vector<std::string_view> kwargs;
};

const std::array<Known, 6>& known_schedules() {
  static const std::array<Known, 6> known = {{{"linear", {}},
                                              {"cosine", {"num_cycles"}},
                                              {"cosine_with_restarts", {"num_cycles"}},
                                              {"polynomial", {"lr_end", "power"}},
                                              {"constant", {}},
                                              {"constant_with_warmup", {}}}};
  return known;
}

std::string joined(const std::vector<std::string_view>& names) { return fmt::format("{}", fmt::join(names, ", ")); }

const Known& known_schedule(const std::string& name) {
  std::vector<std::string_view> names;
  for (const Known& each : known_schedules()) {
    if (each.name == name) return each;
    names.push_back(each.name);
  }
  const std::string nearest = nearest_name(name, names);
  throw usage_error(fmt::format("training.lr_scheduler_type: unknown schedule \"{}\"", name),
                    nearest.empty() ? "known: " + joined(names) : fmt::format("did you mean \"{}\"?", nearest));
}

void check_kwargs(const ScheduleOptions& options) {
  const std::vector<std::string_view> keys = known_schedule(options.name).kwargs;
  if (!options.kwargs.is_object()) {
    throw usage_error("training.lr_scheduler_kwargs: not a table", "write it like { num_cycles = 0.5 }");
  }
  for (const auto& [key, value] : options.kwargs.items()) {
    if (std::find(keys.begin(), keys.end(), key) == keys.end()) {
      const std::string nearest = nearest_name(key, keys);
      std::string hint = fmt::format("known: {}", joined(keys));
      if (keys.empty()) hint = fmt::format("\"{}\" takes no parameters", options.name);
      if (!nearest.empty()) hint = fmt::format("did you mean \"{}\"?", nearest);
      throw usage_error(fmt::format("training.lr_scheduler_kwargs: unknown key \"{}\" for \"{}\"", key, options.name),
                        hint);
    }
    if (!value.is_number() || !std::isfinite(value.get<double>())) {
      throw usage_error(fmt::format("training.lr_scheduler_kwargs.{}: {} is not a number", key, value.dump()));
    }
  }
}

double ratio(std::int64_t part, std::int64_t whole) {
  return static_cast<double>(part) / static_cast<double>(std::max<std::int64_t>(1, whole));
}

// Rises from 0 over `warmup` updates, then goes on as `after`.
LrSchedule with_warmup(std::int64_t warmup, LrSchedule after) {
  return [warmup, after = std::move(after)](std::int64_t s) { return s < warmup ? ratio(s, warmup) : after(s); };
}

LrSchedule linear(std::int64_t warmup, std::int64_t total) {
  return [=](std::int64_t s) { return std::max(0.0, ratio(total - s, total - warmup)); };
}

LrSchedule cosine(std::int64_t warmup, std::int64_t total, double cycles) {
  return [=](std::int64_t s) {
    const double progress = ratio(s - warmup, total - warmup);
    return std::max(0.0, 0.5 * (1.0 + std::cos(std::numbers::pi * cycles * 2.0 * progress)));
  };
}

LrSchedule cosine_with_restarts(std::int64_t warmup, std::int64_t total, double cycles) {
  return [=](std::int64_t s) {
    const double progress = ratio(s - warmup, total - warmup);
    if (progress >= 1.0) return 0.0;
    const double position = cycles * progress;
    return std::max(0.0, 0.5 * (1.0 + std::cos(std::numbers::pi * (position - std::floor(position)))));
  };
}

LrSchedule polynomial(std::int64_t warmup, std::int64_t total, double peak, double end, double power) {
  if (!(peak > end)) {
    throw usage_error(
        fmt::format("training.lr_scheduler_kwargs.lr_end: {} is not below the learning rate {}", end, peak),
        "set lr_scheduler_kwargs = { lr_end = ... } or raise learning_rate");
  }
  return [=](std::int64_t s) {
    // After the last update; also when warm-up fills the whole run and there is no decay to be part-way through.
    if (s > total || total == warmup) return end / peak;
    const double remaining = 1.0 - static_cast<double>(s - warmup) / static_cast<double>(total - warmup);
    return ((peak - end) * std::pow(remaining, power) + end) / peak;
  };
}

}  // namespace

LrSchedule make_lr_schedule(const ScheduleOptions& options) {
  check_kwargs(options);
  const std::int64_t warmup = options.warmup_steps;
  const std::int64_t total = options.total_steps;
  const auto number = [&](const char* key, double fallback) { return options.kwargs.value(key, fallback); };
  const auto one = [](std::int64_t) { return 1.0; };
  if (options.name == "constant") return one;
  if (options.name == "constant_with_warmup") return with_warmup(warmup, one);
  if (options.name == "cosine") return with_warmup(warmup, cosine(warmup, total, number("num_cycles", 0.5)));
  if (options.name == "cosine_with_restarts") {
    return with_warmup(warmup, cosine_with_restarts(warmup, total, number("num_cycles", 1)));
  }
  if (options.name == "polynomial") {
    const double end = number("lr_end", 1e-7);
    return with_warmup(warmup, polynomial(warmup, total, options.learning_rate, end, number("power", 1.0)));
  }
  return with_warmup(warmup, linear(warmup, total));
}

}  // namespace dtrain
