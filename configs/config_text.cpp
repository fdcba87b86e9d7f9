#include "configs/config_text.h"

#include <algorithm>

#include <fmt/format.h>

#include "configs/known_names.h"
#include "core/digest.h"
#include "core/error.h"

namespace dtrain {
namespace {

// Not set: a default that the file cannot spell.
bool is_left_out(const Setting& setting, const Json& value) {
  return value.is_null() || (setting.type == SettingType::kTable && value.empty()) ||
         (setting.constraint.kind == Constraint::Kind::kRequired && value == "");
}

std::string default_text(const Setting& setting) {
  return is_left_out(setting, setting.default_value) ? "" : value_text(setting, setting.default_value);
}

// Comments of TOML may not contain control characters; nothing else is special in them.
std::string comment_text(std::string text) {
  std::replace_if(
      text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; }, '?');
  return text;
}

template <class Line>
std::string by_section(const Line& line) {
  std::string text;
  for (const SettingSection& section : all_sections()) {
    text += fmt::format("{}[{}]\n", text.empty() ? "" : "\n", section.name);
    for (const Setting& setting : all_settings()) {
      if (setting.section == section.name) text += line(setting);
    }
  }
  return text;
}

}  // namespace

std::string value_text(const Setting& setting, const Json& value) {
  std::string text = toml_text(value);
  if (setting.type == SettingType::kNumber && text.ends_with(".0")) text.resize(text.size() - 2);
  return text;
}

std::string to_toml(const TrainConfig& config) {
  return by_section([&](const Setting& setting) -> std::string {
    const Json value = setting.get(config);
    if (is_left_out(setting, value)) return "";
    return fmt::format("{} = {}\n", setting.key, value_text(setting, value));
  });
}

std::string print_config(const LoadedConfig& loaded) {
  constexpr int kColumn = 48;  // where the comments start, if the line leaves room
  return by_section([&](const Setting& setting) {
    const Json value = setting.get(loaded.config);
    const auto origin = loaded.origins.find(setting.name());
    const std::string origin_text = origin == loaded.origins.end() ? "" : comment_text(origin->second.text());
    const std::string line = is_left_out(setting, value)
                                 ? fmt::format("# {} is not set", setting.key)
                                 : fmt::format("{} = {}", setting.key, value_text(setting, value));
    return fmt::format("{:<{}} # {}\n", line, kColumn, origin_text);
  });
}

std::string config_digest(const TrainConfig& config) {
  Digest digest;
  for (const Setting& setting : all_settings()) {
    const Json value = setting.get(config);
    // The dump of a string ends at its quotes, so that no value can imitate the next setting.
    digest.add(setting.name()).add("=").add(value.dump(-1, ' ', false, Json::error_handler_t::replace)).add("\n");
  }
  return digest.hex();
}

std::vector<Difference> diff(const TrainConfig& a, const TrainConfig& b) {
  std::vector<Difference> differences;
  for (const Setting& setting : all_settings()) {
    const Json value_a = setting.get(a);
    const Json value_b = setting.get(b);
    if (value_a == value_b) continue;
    const auto text = [&](const Json& value) { return value.is_null() ? "not set" : value_text(setting, value); };
    differences.push_back({setting.name(), setting.setting_class, text(value_a), text(value_b)});
  }
  return differences;
}

std::string settings_help(std::string_view section) {
  if (section == "hub") {
    std::string text = "[hub]  Upload of the result; short names of settings under [training]\n";
    for (const Alias& alias : all_aliases()) {
      if (alias.section != section) continue;
      const Setting* setting = find_setting("training", alias.new_name);
      text += fmt::format("\n  {}  (training.{})\n      {}\n", alias.old_name, alias.new_name, setting->doc);
    }
    return text;
  }
  const auto& sections = all_sections();
  const auto found = std::find_if(sections.begin(), sections.end(), [&](const auto& s) { return s.name == section; });
  if (found == sections.end()) {
    std::vector<std::string> names;
    for (const auto& s : sections) names.push_back(s.name);
    throw usage_error(fmt::format("there is no section \"{}\"", section),
                      fmt::format("the sections are: {}", fmt::join(names, ", ")));
  }
  std::string text = fmt::format("[{}]  {}\n", found->name, found->doc);
  for (const Setting& setting : all_settings()) {
    if (setting.section != section) continue;
    const std::string shown = default_text(setting);
    const std::string allowed = describe_constraint(setting.constraint);
    text += fmt::format("\n  {} = {}  ({}{})\n      {}\n", setting.key, shown.empty() ? "..." : shown,
                        describe_type(setting), allowed.empty() ? "" : ": " + allowed, setting.doc);
  }
  return text;
}

}  // namespace dtrain
