#include "trainer/optim/lr_schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>

#include "core/error.h"
#include "trainer/optim/schedule_kwargs.h"

namespace dtrain {
namespace {

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
  check_schedule_kwargs(options.name, options.kwargs);
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
  DTRAIN_CHECK(options.name == "linear", "\"{}\" is no schedule of the number of updates", options.name);
  return with_warmup(warmup, linear(warmup, total));
}

}  // namespace dtrain
