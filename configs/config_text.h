// What is written about a configuration: the resolved file, the print-out of `dtrain config`, digest, differences, help
// and the documentation page. Pure functions.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "configs/load_config.h"
#include "configs/setting.h"
#include "configs/train_config.h"

namespace dtrain {

// A value of `setting` as TOML; null is "". Floats that are whole numbers are written without a fraction where the
// setting takes a number: "logging_steps = 500".
[[nodiscard]] std::string value_text(const Setting& setting, const Json& value);

// The resolved file: every setting that has a value. load_config reads it back to an equal TrainConfig.
[[nodiscard]] std::string to_toml(const TrainConfig& config);

// The same with the origin of each value as a comment, and settings without a value as comments.
[[nodiscard]] std::string print_config(const LoadedConfig& loaded);

// Equal when all settings are, with overwhelming probability. 32 hexadecimal digits.
[[nodiscard]] std::string config_digest(const TrainConfig& config);

struct Difference {
  std::string name;  // "section.key"
  SettingClass setting_class = SettingClass::kRuntime;
  std::string a;  // as TOML; "not set" for an optional without value
  std::string b;
};

// The settings in which two configurations differ, in the order of settings.def.
[[nodiscard]] std::vector<Difference> diff(const TrainConfig& a, const TrainConfig& b);

// The settings of one section, for a terminal. Unknown section: Error(kUsage).
[[nodiscard]] std::string settings_help(std::string_view section);

// docs/settings.md.
[[nodiscard]] std::string settings_markdown();

// docs/from-trainingarguments.md.
[[nodiscard]] std::string arguments_markdown();

}  // namespace dtrain
