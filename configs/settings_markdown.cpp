// docs/settings.md, from the tables of settings and of known names.
#include <fmt/format.h>

#include "configs/config_text.h"
#include "configs/known_names.h"
#include "configs/markdown_cell.h"

namespace dtrain {
namespace {

std::string code(const std::string& text) { return text.empty() ? "" : fmt::format("`{}`", markdown_cell(text)); }

std::string default_cell(const Setting& setting) {
  if (setting.default_value.is_null() || setting.default_value == Json::object()) return "";
  if (setting.constraint.kind == Constraint::Kind::kRequired && setting.default_value == "") return "";
  std::string text = toml_text(setting.default_value);
  if (setting.type == SettingType::kNumber && text.ends_with(".0")) text.resize(text.size() - 2);
  return code(text);
}

}  // namespace

std::string settings_markdown() {
  std::string page =
      "# Settings\n\n"
      "<!-- Generated from configs/settings.def. Regenerate: dtrain config --markdown > docs/settings.md -->\n\n"
      "A configuration is a TOML file with the sections below; `dtrain config FILE.toml` prints every value with its "
      "origin.\n"
      "`--set section.key=value` overrides a value (`--set section.key=` restores its default). Unknown keys, wrong "
      "types,\n"
      "values out of range and contradictions are errors that name file, line, column and key.\n\n"
      "The last column says what resuming from a checkpoint demands: `identity` settings must be equal to the "
      "checkpoint's,\n"
      "`schedule` settings may change and the change is logged, `runtime` settings are free.\n";
  for (const SettingSection& section : all_sections()) {
    page += fmt::format("\n## [{}]\n\n{}\n\n", section.name, section.doc);
    page += "| key | type | default | allowed | meaning | on resume |\n| --- | --- | --- | --- | --- | --- |\n";
    for (const Setting& setting : all_settings()) {
      if (setting.section != section.name) continue;
      page += fmt::format("| `{}` | {} | {} | {} | {} | {} |\n", setting.key, describe_type(setting),
                          default_cell(setting), markdown_cell(describe_constraint(setting.constraint)),
                          markdown_cell(setting.doc), describe_class(setting.setting_class));
    }
  }
  page +=
      "\n## Old names\n\n"
      "Accepted under `[training]` with a warning that gives the new name; both at once are an error.\n\n"
      "| old name | new name |\n| --- | --- |\n";
  for (const Alias& alias : all_aliases()) {
    if (alias.section != "training") continue;
    std::string values;
    for (const auto& [from, to] : alias.values) {
      values += fmt::format("{}{} is {}", values.empty() ? ": " : ", ", code(toml_text(from)), code(toml_text(to)));
    }
    page += fmt::format("| `{}` | `{}`{}{} |\n", alias.old_name, alias.new_name, values,
                        alias.is_ratio ? " (from 0 to below 1)" : "");
  }
  page +=
      "\n## [hub]\n\n"
      "Short names of settings under `[training]`; one of the two is enough.\n\n"
      "| short name | setting |\n| --- | --- |\n";
  for (const Alias& alias : all_aliases()) {
    if (alias.section == "hub") page += fmt::format("| `hub.{}` | `training.{}` |\n", alias.old_name, alias.new_name);
  }
  page +=
      "\n## Arguments of the Trainer that dtrain does not have\n\n"
      "These names are known. A value that asks for nothing else than dtrain does is accepted; any other one is "
      "refused, or\n"
      "has no effect and gives a warning, as the table says.\n\n"
      "| name | accepted | any other value | why |\n| --- | --- | --- | --- |\n";
  for (const UnsupportedName& name : all_unsupported_names()) {
    std::string accepted = code(toml_text(name.peer_default));
    for (const Json& value : name.accepted) {
      accepted += fmt::format("{}{}", accepted.empty() ? "" : ", ", code(toml_text(value)));
    }
    page += fmt::format("| `{}` | {} | {} | {} |\n", name.name, accepted,
                        name.other == UnsupportedName::Other::kWarn ? "warning" : "error", markdown_cell(name.reason));
  }
  return page;
}

}  // namespace dtrain
