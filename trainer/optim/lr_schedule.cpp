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

enum class Kind { kNumber, kShape };

struct Keyword {
  std::string_view name;
  Kind kind = Kind::kNumber;
};

struct Known {
  std::string_view name;
  std::vector<Keyword> kwargs;
};

const std::vector<Known>& known_schedules() {
  static const std::vector<Known> known = {
      {"linear", {}},
      {"cosine", {{"num_cycles"}}},
      {"cosine_with_restarts", {{"num_cycles"}}},
      {"polynomial", {{"lr_end"}, {"power"}}},
      {"constant", {}},
      {"constant_with_warmup", {}},
      {"inverse_sqrt", {{"timescale"}}},
      {"cosine_with_min_lr", {{"num_cycles"}, {"min_lr"}, {"min_lr_rate"}}},
      {"cosine_warmup_with_min_lr", {{"num_cycles"}, {"min_lr"}, {"min_lr_rate"}, {"warmup_lr_rate"}}},
      {"warmup_stable_decay",
       {{"num_decay_steps"},
        {"num_stable_steps"},
        {"warmup_type", Kind::kShape},
        {"decay_type", Kind::kShape},
        {"min_lr_ratio"},
        {"num_cycles"}}}};
  return known;
}

constexpr std::array<std::string_view, 3> kShapes = {"linear", "cosine", "1-sqrt"};

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
  const std::vector<Keyword>& known = known_schedule(options.name).kwargs;
  if (!options.kwargs.is_object()) {
    throw usage_error("training.lr_scheduler_kwargs: not a table", "write it like { num_cycles = 0.5 }");
  }
  std::vector<std::string_view> names;
  for (const Keyword& keyword : known) names.push_back(keyword.name);
  for (const auto& [key, value] : options.kwargs.items()) {
    const auto found = std::find(names.begin(), names.end(), key);
    if (found == names.end()) {
      const std::string nearest = nearest_name(key, names);
      std::string hint = fmt::format("known: {}", joined(names));
      if (names.empty()) hint = fmt::format("\"{}\" takes no parameters", options.name);
      if (!nearest.empty()) hint = fmt::format("did you mean \"{}\"?", nearest);
      throw usage_error(fmt::format("training.lr_scheduler_kwargs: unknown key \"{}\" for \"{}\"", key, options.name),
                        hint);
    }
    if (known[static_cast<std::size_t>(found - names.begin())].kind == Kind::kShape) {
      if (!value.is_string() || std::find(kShapes.begin(), kShapes.end(), value.get<std::string>()) == kShapes.end()) {
        throw usage_error(fmt::format("training.lr_scheduler_kwargs.{}: {} is no shape", key, value.dump()),
                          "known: " + joined({kShapes.begin(), kShapes.end()}));
      }
    } else if (!value.is_number() || !std::isfinite(value.get<double>())) {
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

double cosine_at(double progress, double cycles) {
  return 0.5 * (1.0 + std::cos(std::numbers::pi * cycles * 2.0 * progress));
}

// A factor from 0 to 1 becomes one from `least` to 1.
double above(double factor, double least) { return std::max(0.0, factor * (1.0 - least) + least); }

LrSchedule cosine(std::int64_t warmup, std::int64_t total, double cycles, double least = 0) {
  return [=](std::int64_t s) { return above(cosine_at(ratio(s - warmup, total - warmup), cycles), least); };
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

LrSchedule inverse_sqrt(std::int64_t warmup, double timescale) {
  const double shift = timescale - static_cast<double>(warmup);
  return [=](std::int64_t s) { return 1.0 / std::sqrt((static_cast<double>(s) + shift) / timescale); };
}

// The least factor of the two schedules with min_lr: exactly one of two keys gives it.
double least_rate(const ScheduleOptions& options) {
  const bool absolute = options.kwargs.contains("min_lr");
  if (absolute == options.kwargs.contains("min_lr_rate")) {
    throw usage_error(fmt::format("training.lr_scheduler_kwargs: {} of min_lr and min_lr_rate for \"{}\"",
                                  absolute ? "both" : "none", options.name),
                      "give exactly one of them");
  }
  if (!absolute) return options.kwargs.at("min_lr_rate").get<double>();
  return options.kwargs.at("min_lr").get<double>() / options.learning_rate;
}

// Unlike the others it begins above 0 and counts the update that is about to be made.
LrSchedule cosine_warmup_with_min_lr(const ScheduleOptions& options, double cycles, double least) {
  const auto warmup = static_cast<double>(options.warmup_steps);
  const double decay = std::max(1.0, static_cast<double>(options.total_steps) - warmup);
  const bool has_rate = options.kwargs.contains("warmup_lr_rate");
  const double rate = has_rate ? options.kwargs.at("warmup_lr_rate").get<double>() : 0;
  return [=](std::int64_t step) {
    const auto s = static_cast<double>(step);
    if (s >= warmup) return above(cosine_at((s - warmup + 1.0) / decay, cycles), least);
    if (!has_rate) return (s + 1.0) / std::max(1.0, warmup);
    return rate + (1.0 - rate) * s / std::max(1.0, warmup - 1.0);
  };
}

LrSchedule warmup_stable_decay(const ScheduleOptions& options) {
  if (!options.kwargs.contains("num_decay_steps")) {
    throw usage_error("training.lr_scheduler_kwargs.num_decay_steps is not set",
                      "\"warmup_stable_decay\" needs it: lr_scheduler_kwargs = { num_decay_steps = 100 }");
  }
  const std::int64_t warmup = options.warmup_steps;
  const auto decay = options.kwargs.at("num_decay_steps").get<std::int64_t>();
  const std::int64_t stable =
      options.kwargs.value<std::int64_t>("num_stable_steps", options.total_steps - warmup - decay);
  const std::string rise = options.kwargs.value("warmup_type", "linear");
  const std::string fall = options.kwargs.value("decay_type", "cosine");
  const double least = options.kwargs.value("min_lr_ratio", 0.0);
  const double cycles = options.kwargs.value("num_cycles", 0.5);
  return [=](std::int64_t s) {
    if (s < warmup) {
      const double progress = ratio(s, warmup);
      if (rise == "linear") return above(progress, least);
      if (rise == "cosine") return above(0.5 * (1.0 - std::cos(std::numbers::pi * progress)), least);
      return above(1.0 - std::sqrt(1.0 - progress), least);
    }
    if (s < warmup + stable) return 1.0;
    if (s >= warmup + stable + decay) return least;
    const double progress = ratio(s - warmup - stable, decay);
    if (fall == "linear") return above(1.0 - progress, least);
    if (fall == "cosine") return above(cosine_at(progress, cycles), least);
    return above(1.0 - std::sqrt(progress), least);
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
  if (options.name == "inverse_sqrt") {
    const double timescale = number("timescale", static_cast<double>(warmup > 0 ? warmup : 10'000));
    if (timescale <= 0) {
      throw usage_error(fmt::format("training.lr_scheduler_kwargs.timescale: {} is not above 0", timescale));
    }
    return with_warmup(warmup, inverse_sqrt(warmup, timescale));
  }
  if (options.name == "cosine_with_min_lr") {
    return with_warmup(warmup, cosine(warmup, total, number("num_cycles", 0.5), least_rate(options)));
  }
  if (options.name == "cosine_warmup_with_min_lr") {
    return cosine_warmup_with_min_lr(options, number("num_cycles", 0.5), least_rate(options));
  }
  if (options.name == "warmup_stable_decay") return warmup_stable_decay(options);
  return with_warmup(warmup, linear(warmup, total));
}

}  // namespace dtrain
