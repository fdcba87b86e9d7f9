// Setting: one row of configs/settings.def as data, so that reading, writing, checking and documenting are loops over
// rows. Values travel as Json: null (an optional that is not set), boolean, integer, float, string, array of strings
// or of objects, or object. Thread-safe: the table is built once and never changes.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "configs/train_config.h"
#include "core/json.h"

namespace dtrain {

enum class SettingType { kBool, kInteger, kNumber, kString, kStringList, kTable, kTableList };

// What resuming a run demands of a setting; see configs/settings.def.
enum class SettingClass { kIdentity, kSchedule, kRuntime };

// Which values of the right type are allowed.
struct Constraint {
  enum class Kind { kAny, kRequired, kRange, kSteps, kOneOf, kMetricNames, kOnly };
  Kind kind = Kind::kAny;
  double low = 0;
  double high = 0;
  bool low_open = false;
  bool high_open = false;
  std::vector<std::string> choices;
  std::vector<std::string> known_elsewhere;  // values of the Hugging Face Trainer that dtrain does not have
  Json only;
};

struct Setting {
  std::string section;
  std::string key;
  SettingType type = SettingType::kBool;
  bool optional = false;
  Json default_value;
  Constraint constraint;
  SettingClass setting_class = SettingClass::kRuntime;
  std::string doc;
  std::function<Json(const TrainConfig&)> get;
  std::function<void(TrainConfig&, const Json&)> set;  // takes what checked_value returned

  [[nodiscard]] std::string name() const { return section + "." + key; }
};

struct SettingSection {
  std::string name;
  std::string doc;
};

// In the order of settings.def.
[[nodiscard]] const std::vector<Setting>& all_settings();
[[nodiscard]] const std::vector<SettingSection>& all_sections();

// Null when there is none.
[[nodiscard]] const Setting* find_setting(std::string_view section, std::string_view key);

// `value` as the setting holds it (whole numbers become floats where floats are wanted, a string becomes a list of
// one), or Error(kUsage) "<where>: <section.key>: <reason>" when type, range or choice do not fit.
[[nodiscard]] Json checked_value(const Setting& setting, const Json& value, const std::string& where);

// A value as TOML text, in one line; null is "".
[[nodiscard]] std::string toml_text(const Json& value);

// "a whole number, 1 or more": for messages, help and docs.
[[nodiscard]] std::string describe_type(const Setting& setting);
[[nodiscard]] std::string describe_constraint(const Constraint& constraint);
[[nodiscard]] std::string_view describe_class(SettingClass setting_class);

}  // namespace dtrain
