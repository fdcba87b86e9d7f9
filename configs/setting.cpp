#include "configs/setting.h"

#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <type_traits>
#include <utility>

#include <fmt/format.h>

namespace dtrain {
namespace {

// Whole numbers up to 2^53 are exact as double, so ranges can be kept as double; no setting needs more.
constexpr double kNoLimit = 9007199254740992.0;

// The vocabulary of the constraint column of settings.def.
Constraint range(double low, double high, bool low_open, bool high_open) {
  Constraint constraint;
  constraint.kind = Constraint::Kind::kRange;
  constraint.low = low;
  constraint.high = high;
  constraint.low_open = low_open;
  constraint.high_open = high_open;
  return constraint;
}
Constraint of_kind(Constraint::Kind kind) {
  Constraint constraint;
  constraint.kind = kind;
  return constraint;
}
Constraint any() { return of_kind(Constraint::Kind::kAny); }
Constraint required() { return of_kind(Constraint::Kind::kRequired); }
Constraint steps() { return of_kind(Constraint::Kind::kSteps); }
Constraint metric_names() { return of_kind(Constraint::Kind::kMetricNames); }
Constraint between(double low, double high) { return range(low, high, false, false); }
Constraint at_least(double low) { return range(low, kNoLimit, false, false); }
Constraint above(double low, double high) { return range(low, high, true, false); }
Constraint below(double low, double high) { return range(low, high, false, true); }
Constraint only(bool value) {
  Constraint constraint = of_kind(Constraint::Kind::kOnly);
  constraint.only = value;
  return constraint;
}
Constraint one_of(std::initializer_list<const char*> choices, std::initializer_list<const char*> known_elsewhere = {}) {
  Constraint constraint = of_kind(Constraint::Kind::kOneOf);
  constraint.choices.assign(choices.begin(), choices.end());
  constraint.known_elsewhere.assign(known_elsewhere.begin(), known_elsewhere.end());
  return constraint;
}

template <class T>
struct IsOptional : std::false_type {};
template <class T>
struct IsOptional<std::optional<T>> : std::true_type {
  using Value = T;
};

template <class T>
constexpr SettingType type_of() {
  if constexpr (IsOptional<T>::value) {
    return type_of<typename IsOptional<T>::Value>();
  } else if constexpr (std::is_same_v<T, bool>) {
    return SettingType::kBool;
  } else if constexpr (std::is_same_v<T, std::int64_t>) {
    return SettingType::kInteger;
  } else if constexpr (std::is_same_v<T, double>) {
    return SettingType::kNumber;
  } else if constexpr (std::is_same_v<T, std::string>) {
    return SettingType::kString;
  } else if constexpr (std::is_same_v<T, std::vector<std::string>>) {
    return SettingType::kStringList;
  } else if constexpr (std::is_same_v<T, std::vector<Json>>) {
    return SettingType::kTableList;
  } else {
    static_assert(std::is_same_v<T, Json>, "settings.def: a type that no setting can have");
    return SettingType::kTable;
  }
}

template <class T>
Json to_value(const T& member) {
  if constexpr (IsOptional<T>::value) {
    return member ? Json(*member) : Json(nullptr);
  } else {
    return Json(member);
  }
}

template <class T>
void from_value(T& member, const Json& value) {
  if constexpr (std::is_same_v<T, Json>) {
    member = value;
  } else if constexpr (IsOptional<T>::value) {
    if (value.is_null()) {
      member.reset();
    } else {
      member = value.get<typename IsOptional<T>::Value>();
    }
  } else {
    member = value.get<T>();
  }
}

template <class T>
Setting make_setting(std::string section, std::string key, Constraint constraint, SettingClass setting_class,
                     std::string doc, std::function<Json(const TrainConfig&)> get,
                     std::function<void(TrainConfig&, const Json&)> set) {
  Setting setting;
  setting.section = std::move(section);
  setting.key = std::move(key);
  setting.type = type_of<T>();
  setting.optional = IsOptional<T>::value;
  const TrainConfig defaults;
  setting.default_value = get(defaults);
  setting.constraint = std::move(constraint);
  setting.setting_class = setting_class;
  setting.doc = std::move(doc);
  setting.get = std::move(get);
  setting.set = std::move(set);
  return setting;
}

std::vector<Setting> make_settings() {
  using enum SettingClass;
  std::vector<Setting> settings;
#define DTRAIN_SECTION(section, type, doc)
#define DTRAIN_SETTING(section, key, type, default_value, constraint, setting_class, doc) \
  settings.push_back(make_setting<type>(                                                  \
      #section, #key, constraint, setting_class, doc,                                     \
      [](const TrainConfig& config) { return to_value<type>(config.section.key); },       \
      [](TrainConfig& config, const Json& value) { from_value<type>(config.section.key, value); }));
#define DTRAIN_SECTION_END(section)
#include "configs/settings.def"
#undef DTRAIN_SECTION
#undef DTRAIN_SETTING
#undef DTRAIN_SECTION_END
  return settings;
}

}  // namespace

const std::vector<Setting>& all_settings() {
  static const std::vector<Setting> settings = make_settings();
  return settings;
}

const std::vector<SettingSection>& all_sections() {
  static const std::vector<SettingSection> sections = {
#define DTRAIN_SECTION(section, type, doc) {#section, doc},
#define DTRAIN_SETTING(section, key, type, default_value, constraint, setting_class, doc)
#define DTRAIN_SECTION_END(section)
#include "configs/settings.def"
#undef DTRAIN_SECTION
#undef DTRAIN_SETTING
#undef DTRAIN_SECTION_END
  };
  return sections;
}

const Setting* find_setting(std::string_view section, std::string_view key) {
  for (const Setting& setting : all_settings()) {
    if (setting.section == section && setting.key == key) return &setting;
  }
  return nullptr;
}

std::string describe_type(const Setting& setting) {
  switch (setting.type) {
    case SettingType::kBool:
      return "true or false";
    case SettingType::kInteger:
      return "whole number";
    case SettingType::kNumber:
      return "number";
    case SettingType::kString:
      return "string";
    case SettingType::kStringList:
      return "list of strings";
    case SettingType::kTable:
      return "table";
    case SettingType::kTableList:
      return "list of tables";
  }
  return "";
}

std::string describe_constraint(const Constraint& constraint) {
  switch (constraint.kind) {
    case Constraint::Kind::kAny:
    case Constraint::Kind::kMetricNames:  // the text of the setting lists them
      return "";
    case Constraint::Kind::kRequired:
      return "not empty";
    case Constraint::Kind::kSteps:
      return "a whole number, or a share from 0 to below 1";
    case Constraint::Kind::kOneOf:
      return fmt::format("{}", fmt::join(constraint.choices, ", "));
    case Constraint::Kind::kOnly:
      return toml_text(constraint.only);
    case Constraint::Kind::kRange:
      break;
  }
  if (constraint.high >= kNoLimit) return fmt::format("{:.16g} or more", constraint.low);
  return fmt::format("{}{:.16g} to {}{:.16g}", constraint.low_open ? "above " : "", constraint.low,
                     constraint.high_open ? "below " : "", constraint.high);
}

std::string_view describe_class(SettingClass setting_class) {
  switch (setting_class) {
    case SettingClass::kIdentity:
      return "identity";
    case SettingClass::kSchedule:
      return "schedule";
    case SettingClass::kRuntime:
      return "runtime";
  }
  return "";
}

}  // namespace dtrain
