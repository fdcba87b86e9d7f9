#include "config_support.h"

#include <cmath>

#include <gtest/gtest.h>

namespace dtrain::test {

std::string toml_with(const std::string& more) {
  return "[model]\npath = \"m\"\n[data]\ntrain = \"t.jsonl\"\n\n[training]\n" + more;
}

std::string toml_with_eval(const std::string& more) {
  return "[model]\npath = \"m\"\n[data]\ntrain = \"t.jsonl\"\neval = \"e.jsonl\"\n\n[training]\n" + more;
}

LoadedConfig load(const std::string& toml, const std::vector<std::string>& overrides) {
  return load_config(toml, "run.toml", overrides);
}

std::string error_of(const std::string& toml, const std::vector<std::string>& overrides) {
  try {
    (void)load(toml, overrides);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kUsage);
    const std::string message = error.what();
    EXPECT_EQ(message.find('\n'), std::string::npos) << "not one line: " << message;
    EXPECT_LT(message.size(), 600U) << message;
    return message + " | " + error.hint();
  }
  return "";
}

Json other_value(const Setting& setting) {
  const Constraint& constraint = setting.constraint;
  switch (setting.type) {
    case SettingType::kBool:
      return setting.default_value.is_null() || !setting.default_value.get<bool>();
    case SettingType::kInteger:
      return static_cast<std::int64_t>(constraint.low) + 6;
    case SettingType::kNumber: {
      const double low = constraint.kind == Constraint::Kind::kRange ? constraint.low : 0.0;
      return low + 0.3;  // has no exact binary form: the text must carry all digits
    }
    case SettingType::kString:
      if (setting.key == "hub_model_id") return "me/re-view_s.1";
      for (const std::string& choice : constraint.choices) {
        if (choice != setting.default_value) return choice;
      }
      return constraint.choices.empty() ? Json("a \"b\"\\c\n\t\x01 \xC3\xBC # = [x]") : Json();
    case SettingType::kStringList:
      if (constraint.kind == Constraint::Kind::kMetricNames) return {"precision:macro", "mse"};
      return constraint.choices.empty() ? Json({"neg, \"very\"", "pos\xE2\x82\xAC"}) : Json({"jsonl"});
    case SettingType::kTable:
      return {{"num_cycles", 2}, {"lr_end", 1e-9}, {"odd key", "x\"y"}, {"whole", 3.0}, {"flag", true}};
    case SettingType::kTableList:
      // Not a group that resolve would refuse.
      return Json::array(
          {{{"pattern", "a \"b\".*"}, {"learning_rate", 3e-9}}, {{"pattern", "c"}, {"weight_decay", 1.0}}});
  }
  return nullptr;
}

}  // namespace dtrain::test
