#include "configs/sweep_settings.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <set>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "configs/metric_names.h"
#include "configs/setting.h"
#include "configs/toml_reader.h"
#include "core/error.h"

namespace dtrain {
namespace {

constexpr std::string_view kPrefix = "sweep.";
constexpr std::array<std::string_view, 6> kKeys = {"method", "trials", "metric", "seed", "direction", "startup_trials"};
constexpr std::array<std::string_view, 5> kRangeKeys = {"low", "high", "step", "log", "values"};
constexpr std::array<std::string_view, 5> kReserved = {"training.output_dir", "training.resume_from_checkpoint",
                                                       "training.overwrite_output_dir", "training.auto_find_batch_size",
                                                       "training.ddp_timeout"};
constexpr std::int64_t kMostPoints = 100000;
constexpr double kLargestExact = 9007199254740992.0;  // 2^53

[[noreturn]] void fail(const RawSetting& raw, const std::string& reason, const std::string& hint = {}) {
  throw usage_error(fmt::format("{}: sweep.{}: {}", raw.where, raw.key, reason), hint);
}

std::int64_t whole_number(const RawSetting& raw, std::int64_t low) {
  if (!raw.value.is_number_integer() || raw.value.get<double>() < static_cast<double>(low) ||
      raw.value.get<double>() > kLargestExact) {
    fail(raw, fmt::format("needs a whole number, {} or more", low));
  }
  return raw.value.get<std::int64_t>();
}

std::string choice(const RawSetting& raw, const std::vector<std::string>& choices) {
  if (!raw.value.is_string()) fail(raw, fmt::format("needs one of: {}", fmt::join(choices, ", ")));
  const auto text = raw.value.get<std::string>();
  if (std::find(choices.begin(), choices.end(), text) == choices.end()) {
    const std::string nearest = nearest_name(text, choices);
    fail(raw, fmt::format("\"{}\" is not a known choice", text),
         fmt::format("{}choose one of: {}", nearest.empty() ? "" : fmt::format("did you mean \"{}\"? ", nearest),
                     fmt::join(choices, ", ")));
  }
  return text;
}

class ParameterReader {
 public:
  explicit ParameterReader(const RawSetting& raw) : raw_(raw) {}

  SweepParameter run() const {
    const std::size_t dot = raw_.key.find('.');
    const std::string section = raw_.key.substr(0, dot);
    const std::string key = raw_.key.substr(dot + 1);
    const Setting* setting = find_setting(section, key);
    if (setting == nullptr) {
      std::vector<std::string> names;
      for (const Setting& each : all_settings()) names.push_back(each.name());
      const std::string nearest = nearest_name(raw_.key, names);
      fail(raw_, "is no setting",
           nearest.empty() ? "docs/settings.md lists all keys" : fmt::format("did you mean \"{}\"?", nearest));
    }
    if (std::find(kReserved.begin(), kReserved.end(), raw_.key) != kReserved.end()) {
      fail(raw_, "cannot be searched: it says how trials are run, not what they learn", "remove the line");
    }
    if (!raw_.value.is_object()) {
      fail(raw_, "needs a table", "write { values = [...] }, or { low = ..., high = ... }");
    }
    for (const auto& [name, value] : raw_.value.items()) {
      if (std::find(kRangeKeys.begin(), kRangeKeys.end(), name) != kRangeKeys.end()) continue;
      const std::string nearest = nearest_name(name, kRangeKeys);
      fail(raw_, fmt::format("unknown key \"{}\"", name),
           nearest.empty() ? fmt::format("known: {}", fmt::join(kRangeKeys, ", "))
                           : fmt::format("did you mean \"{}\"?", nearest));
    }
    return raw_.value.contains("values") ? choices(*setting) : range(*setting);
  }

 private:
  SweepParameter choices(const Setting& setting) const {
    if (raw_.value.size() > 1) fail(raw_, "has values, and with them neither low, high, step nor log");
    const Json& values = raw_.value["values"];
    if (!values.is_array() || values.empty()) fail(raw_, "values needs a list with at least one value");
    SweepParameter parameter{.name = raw_.key};
    std::set<Json> seen;
    for (const Json& value : values) {
      parameter.values.push_back(checked_value(setting, value, fmt::format("{}: sweep", raw_.where)));
      if (!seen.insert(parameter.values.back()).second) {
        fail(raw_, fmt::format("values contains {} twice", toml_text(value)));
      }
    }
    return parameter;
  }

  [[nodiscard]] double number(const char* key, bool whole) const {
    const auto found = raw_.value.find(key);
    if (found == raw_.value.end()) {
      fail(raw_, fmt::format("has no {}", key), "write { low = ..., high = ... }, or { values = [...] }");
    }
    if (whole ? !found->is_number_integer() : !found->is_number() || !std::isfinite(found->get<double>())) {
      fail(raw_, fmt::format("{} needs a {}", key, whole ? "whole number" : "number"));
    }
    return found->get<double>();
  }

  SweepParameter range(const Setting& setting) const {
    const bool whole = setting.type == SettingType::kInteger;
    if (!whole && setting.type != SettingType::kNumber) {
      fail(raw_, fmt::format("a {} has no range", describe_type(setting)), "write { values = [...] }");
    }
    using enum SweepParameter::Kind;
    SweepParameter parameter{.name = raw_.key, .kind = whole ? kInteger : kFloat};
    parameter.low = number("low", whole);
    parameter.high = number("high", whole);
    if (raw_.value.contains("log")) {
      if (!raw_.value["log"].is_boolean()) fail(raw_, "log needs true or false");
      parameter.log = raw_.value["log"].get<bool>();
    }
    if (raw_.value.contains("step")) {
      parameter.step = number("step", whole);
      if (!(parameter.step > 0)) fail(raw_, "step must be above 0");
      if (parameter.log) fail(raw_, "log and step exclude each other");
    } else if (whole) {
      parameter.step = 1;
    }
    if (parameter.low > parameter.high) fail(raw_, "low is above high");
    if (parameter.log && !(parameter.low > 0)) fail(raw_, "log needs low above 0");
    if (parameter.step > 0) {
      // A step that does not divide the range ends below high; the slack is for steps such as 0.1.
      const double steps = std::floor((parameter.high - parameter.low) / parameter.step * (1 + 1e-12) + 1e-12);
      parameter.high = std::min(parameter.high, parameter.low + steps * parameter.step);
    }
    for (const double end : {parameter.low, parameter.high}) {
      // The message of a limit beyond 2^63 needs no more digits than these.
      const double exact = std::clamp(end, -kLargestExact, kLargestExact);
      const Json value = whole ? Json(static_cast<std::int64_t>(exact)) : Json(end);
      (void)checked_value(setting, value, fmt::format("{}: sweep", raw_.where));
    }
    return parameter;
  }

  const RawSetting& raw_;
};

// Where [sweep] stands and what is in it, the overrides last.
std::vector<RawSetting> raw_settings(std::string_view bytes, const std::string& file_name,
                                     const std::vector<std::string>& overrides) {
  std::vector<RawSetting> found;
  const RawSettings raw = read_toml(bytes, file_name);
  for (const RawSetting& setting : raw.settings) {
    if (setting.section != "sweep") continue;
    // training.learning_rate without quotes is a table of the table.
    const auto& sections = all_sections();
    const bool is_section = std::any_of(sections.begin(), sections.end(),
                                        [&](const SettingSection& section) { return section.name == setting.key; });
    if (!is_section || !setting.value.is_object()) {
      found.push_back(setting);
      continue;
    }
    for (const auto& [key, value] : setting.value.items()) {
      found.push_back({setting.section, setting.key + "." + key, value, setting.where});
    }
  }
  for (const std::string& argument : overrides) {
    const std::size_t equals = argument.find('=');
    const std::string where = "--set " + argument;
    if (equals == std::string::npos) {
      throw usage_error(fmt::format("{}: not of the form sweep.key=value", where),
                        "write for example --set sweep.trials=5");
    }
    const std::string text = argument.substr(equals + 1);
    const std::optional<Json> value = parse_toml_value(text);
    const std::string key = argument.substr(kPrefix.size(), equals - kPrefix.size());
    std::erase_if(found, [&](const RawSetting& setting) { return setting.key == key; });
    found.push_back({"sweep", key, value ? *value : Json(text), where});
  }
  return found;
}

void check_metric(const SweepSettings& sweep, const TrainConfig& base, const std::string& where) {
  if (!base.data.eval && !base.data.eval_fraction) {
    throw usage_error(fmt::format("{}: trials are compared on evaluation data, and there is none", where),
                      "set data.eval or data.eval_fraction");
  }
  std::vector<std::string> known = {"loss"};
  if (!base.training.prediction_loss_only) {
    for (const std::string& spec : base.metrics.compute) {
      for (std::string& name : metric_result_names(spec)) known.push_back(std::move(name));
    }
  }
  const std::string name = sweep.metric.substr(std::string_view("eval_").size());
  if (std::find(known.begin(), known.end(), name) != known.end()) return;
  throw usage_error(fmt::format("{}: sweep.metric: \"{}\" is not computed; evaluation gives: {}", where, name,
                                fmt::join(known, ", ")),
                    "add it to metrics.compute, or choose another one");
}

}  // namespace

bool SweepParameter::is_single() const {
  return kind == Kind::kChoice ? values.size() == 1 : low == high || (step > 0 && high - low < step);
}

Json SweepSettings::identity() const {
  Json parameters = Json::array();
  for (const SweepParameter& each : space) {
    parameters.push_back(
        each.kind == SweepParameter::Kind::kChoice
            ? Json{{"name", each.name}, {"values", each.values}}
            : Json{
                  {"name", each.name}, {"low", each.low}, {"high", each.high}, {"step", each.step}, {"log", each.log}});
  }
  return {{"method", method},
          {"metric", metric},
          {"direction", maximize ? "maximize" : "minimize"},
          {"seed", seed},
          {"startup_trials", startup_trials},
          {"space", parameters}};
}

bool is_sweep_override(std::string_view argument) { return argument.starts_with(kPrefix); }

std::int64_t grid_size(const std::vector<SweepParameter>& space) {
  std::int64_t points = 1;
  for (const SweepParameter& each : space) {
    std::int64_t count = std::ssize(each.values);
    if (each.kind != SweepParameter::Kind::kChoice) {
      if (each.step == 0 && each.low != each.high) return 0;
      const double steps = each.step == 0 ? 0 : (each.high - each.low) / each.step;
      count = steps < static_cast<double>(kMostPoints) ? std::llround(steps) + 1 : kMostPoints + 1;
    }
    points = count > kMostPoints / points ? kMostPoints + 1 : points * count;
  }
  return points;
}

SweepSettings read_sweep_settings(std::string_view toml_bytes, const std::string& file_name,
                                  const std::vector<std::string>& overrides, const TrainConfig& base) {
  SweepSettings sweep;
  sweep.metric = base.training.metric_for_best_model.value_or("loss");
  std::string direction;
  bool trials_given = false;
  for (const RawSetting& raw : raw_settings(toml_bytes, file_name, overrides)) {
    if (raw.key.find('.') != std::string::npos) {
      sweep.space.push_back(ParameterReader(raw).run());
    } else if (raw.key == "method") {
      sweep.method = choice(raw, {"grid", "random", "tpe"});
    } else if (raw.key == "trials") {
      sweep.trials = whole_number(raw, 1);
      trials_given = true;
    } else if (raw.key == "seed") {
      sweep.seed = whole_number(raw, 0);
    } else if (raw.key == "startup_trials") {
      sweep.startup_trials = whole_number(raw, 1);
    } else if (raw.key == "direction") {
      direction = choice(raw, {"minimize", "maximize"});
    } else if (raw.key == "metric") {
      if (!raw.value.is_string() || raw.value == "") fail(raw, "needs the name of a metric, in quotes");
      sweep.metric = raw.value.get<std::string>();
    } else {
      const std::string nearest = nearest_name(raw.key, kKeys);
      fail(raw, "unknown key",
           nearest.empty() ? fmt::format("known: {}, and settings as \"section.key\"", fmt::join(kKeys, ", "))
                           : fmt::format("did you mean \"{}\"?", nearest));
    }
  }
  if (sweep.space.empty()) {
    throw usage_error(fmt::format("{}: [sweep] names no setting to search", file_name),
                      "write for example \"training.learning_rate\" = { low = 1e-5, high = 1e-3, log = true }");
  }
  if (!sweep.metric.starts_with("eval_")) sweep.metric = "eval_" + sweep.metric;
  sweep.maximize = direction.empty() ? !less_is_better(sweep.metric) : direction == "maximize";
  check_metric(sweep, base, file_name);
  if (sweep.method == "grid") {
    const std::int64_t points = grid_size(sweep.space);
    if (points == 0 || points > kMostPoints) {
      throw usage_error(fmt::format("{}: sweep.method: {}", file_name,
                                    points == 0 ? "a grid needs values, or ranges with a step"
                                                : fmt::format("the grid has more than {} points", kMostPoints)),
                        "add step = ..., or choose method = \"random\" or \"tpe\"");
    }
    sweep.trials = trials_given ? std::min(sweep.trials, points) : points;
  }
  return sweep;
}

}  // namespace dtrain
