#include "trainer/optim/schedule_kwargs.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string_view>
#include <vector>

#include <fmt/ranges.h>

#include "core/error.h"

namespace dtrain {
namespace {

enum class Kind { kNumber, kNotNegative, kCount, kFactor, kFlag, kShape, kMode, kThresholdMode };

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
        {"num_cycles"}}},
      {"reduce_lr_on_plateau",
       {{"mode", Kind::kMode},
        {"factor", Kind::kFactor},
        {"patience", Kind::kCount},
        {"threshold", Kind::kNotNegative},
        {"threshold_mode", Kind::kThresholdMode},
        {"cooldown", Kind::kCount},
        {"min_lr", Kind::kNotNegative},
        {"eps", Kind::kNotNegative}}},
      {"greedy",
       {{"mode", Kind::kMode},
        {"factor", Kind::kFactor},
        {"patience", Kind::kCount},
        {"threshold", Kind::kNotNegative},
        {"threshold_mode", Kind::kThresholdMode},
        {"cooldown", Kind::kCount},
        {"warmup", Kind::kCount},
        {"min_lr", Kind::kNotNegative},
        {"max_lr", Kind::kNotNegative},
        {"eps", Kind::kNotNegative},
        {"verbose", Kind::kFlag},
        {"smooth", Kind::kFlag},
        {"window_size", Kind::kCount},
        {"reset_start", Kind::kCount}}}};
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

// What a key of this kind may be, for messages; and whether a value is.
struct Rule {
  std::string_view wanted;
  bool fits = false;
  std::vector<std::string_view> choices;
};

Rule rule_for(Kind kind, const Json& value) {
  const double number = value.is_number() ? value.get<double>() : std::nan("");
  const auto one_of = [&](std::string_view wanted, std::vector<std::string_view> choices) {
    const bool fits =
        value.is_string() && std::find(choices.begin(), choices.end(), value.get<std::string>()) != choices.end();
    return Rule{wanted, fits, std::move(choices)};
  };
  switch (kind) {
    case Kind::kNumber:
      return {"is not a number", std::isfinite(number), {}};
    case Kind::kNotNegative:
      return {"is not a number of at least 0", std::isfinite(number) && number >= 0, {}};
    case Kind::kCount:
      return {"is not a whole number of at least 0", value.is_number_integer() && number >= 0, {}};
    case Kind::kFactor:
      return {"is not between 0 and 1", number > 0 && number < 1, {}};
    case Kind::kFlag:
      return {"is neither true nor false", value.is_boolean(), {}};
    case Kind::kShape:
      return one_of("is no shape", {"linear", "cosine", "1-sqrt"});
    case Kind::kMode:
      return one_of("is no mode", {"min", "max"});
    case Kind::kThresholdMode:
      return one_of("is no threshold mode", {"rel", "abs"});
  }
  return {};
}

}  // namespace

void check_schedule_kwargs(const std::string& schedule, const Json& kwargs) {
  const std::vector<Keyword>& known = known_schedule(schedule).kwargs;
  if (!kwargs.is_object()) {
    throw usage_error("training.lr_scheduler_kwargs: not a table", "write it like { num_cycles = 0.5 }");
  }
  std::vector<std::string_view> names;
  for (const Keyword& keyword : known) names.push_back(keyword.name);
  for (const auto& [key, value] : kwargs.items()) {
    const auto found = std::find(names.begin(), names.end(), key);
    if (found == names.end()) {
      const std::string nearest = nearest_name(key, names);
      std::string hint = fmt::format("known: {}", joined(names));
      if (names.empty()) hint = fmt::format("\"{}\" takes no parameters", schedule);
      if (!nearest.empty()) hint = fmt::format("did you mean \"{}\"?", nearest);
      throw usage_error(fmt::format("training.lr_scheduler_kwargs: unknown key \"{}\" for \"{}\"", key, schedule),
                        hint);
    }
    const Rule rule = rule_for(known[static_cast<std::size_t>(found - names.begin())].kind, value);
    if (rule.fits) continue;
    throw usage_error(fmt::format("training.lr_scheduler_kwargs.{}: {} {}", key, value.dump(), rule.wanted),
                      rule.choices.empty() ? "" : "known: " + joined(rule.choices));
  }
}

}  // namespace dtrain
