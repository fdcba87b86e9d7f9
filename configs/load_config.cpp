#include "configs/load_config.h"

#include <algorithm>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include "configs/known_names.h"
#include "configs/setting.h"
#include "configs/toml_reader.h"
#include "core/error.h"

namespace dtrain {
namespace {

constexpr std::string_view kSweep = "sweep";

// A name from outside, fit for a one-line message.
std::string shown_name(const std::string& name) {
  constexpr std::size_t kLongest = 60;
  const bool plain = !name.empty() && std::all_of(name.begin(), name.end(), [](char c) {
    return static_cast<unsigned char>(c) > 0x20 && static_cast<unsigned char>(c) < 0x7F;
  });
  std::string text = plain ? name : Json(name).dump(-1, ' ', /*ensure_ascii=*/true, Json::error_handler_t::replace);
  if (text.size() > kLongest) text = text.substr(0, kLongest) + "...";
  return text;
}

// Those of settings.def, then those that have only other names of its settings.
const std::vector<std::string>& section_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> all;
    for (const SettingSection& section : all_sections()) all.push_back(section.name);
    for (const Alias& alias : all_aliases()) {
      if (std::find(all.begin(), all.end(), alias.section) == all.end()) all.push_back(alias.section);
    }
    return all;
  }();
  return names;
}

bool is_section(const std::string& name) {
  const auto& names = section_names();
  return std::find(names.begin(), names.end(), name) != names.end();
}

// The first section that has `key` as a setting or as a name known there; "" when none has.
std::string section_that_has(const std::string& key) {
  for (const Setting& setting : all_settings()) {
    if (setting.key == key) return setting.section;
  }
  return find_alias("training", key) != nullptr || find_unsupported("training", key) != nullptr ? "training" : "";
}

[[noreturn]] void fail_unknown_section(const std::string& name, const std::string& where) {
  const std::string nearest = nearest_name(name, section_names());
  const std::string question = nearest.empty() ? "" : fmt::format("did you mean [{}]? ", nearest);
  throw usage_error(fmt::format("{}: {}: unknown section", where, shown_name(name)),
                    fmt::format("{}the sections are: {}", question, fmt::join(section_names(), ", ")));
}

[[noreturn]] void fail_unknown_key(const RawSetting& raw) {
  std::vector<std::string> known;
  for (const Setting& setting : all_settings()) {
    if (setting.section == raw.section) known.push_back(setting.key);
  }
  for (const Alias& alias : all_aliases()) {
    if (alias.section == raw.section && raw.section != "training") known.push_back(alias.old_name);
  }
  std::string hint;
  const std::string other = section_that_has(raw.key);
  if (const std::string nearest = nearest_name(raw.key, known); !nearest.empty()) {
    hint = fmt::format("did you mean \"{}\"?", nearest);
  } else if (!other.empty()) {
    hint = fmt::format("\"{}\" belongs under [{}]", raw.key, other);
  } else {
    hint = "docs/settings.md lists all keys";
  }
  throw usage_error(fmt::format("{}: {}.{}: unknown key", raw.where, raw.section, shown_name(raw.key)), hint);
}

// Collects given values by setting; the later source replaces the earlier one.
class Collector {
 public:
  explicit Collector(LoadedConfig& loaded) : loaded_(loaded) {}

  void add_file(std::string_view bytes, const std::string& file_name) {
    const RawSettings raw = read_toml(bytes, file_name);
    for (const RawSection& section : raw.sections) {
      if (section.name == kSweep) {
        loaded_.warnings.push_back(fmt::format(
            "{}: [sweep] is for dtrain sweep; this is one run with the settings of the other sections", section.where));
        continue;
      }
      if (!is_section(section.name)) fail_unknown_section(section.name, section.where);
    }
    for (const RawSetting& setting : raw.settings) {
      if (setting.section == kSweep) continue;  // configs/sweep_settings.h
      if (setting.section.empty()) fail_outside(setting);
      add(setting, Origin::Kind::kFile);
    }
  }

  void add_override(const std::string& argument) {
    const std::size_t equals = argument.find('=');
    const std::string name = argument.substr(0, equals);
    // Messages show the argument, but never a token.
    const std::string where = fmt::format("--set {}", shown_name(name.ends_with("hub_token") ? name : argument));
    const std::size_t dot = name.find('.');
    if (equals == std::string::npos || dot == std::string::npos) {
      const std::string section = section_that_has(name);
      throw usage_error(fmt::format("{}: not of the form section.key=value", where),
                        section.empty() ? "write for example --set training.learning_rate=1e-4"
                                        : fmt::format("write --set {}.{}=...", section, name));
    }
    RawSetting raw{name.substr(0, dot), name.substr(dot + 1), nullptr, where};
    if (!is_section(raw.section)) fail_unknown_section(raw.section, where);
    const std::string text = argument.substr(equals + 1);
    if (text.empty()) {
      restore_default(raw);
      return;
    }
    raw.value = override_value(raw, text);
    add(raw, Origin::Kind::kCommandLine);
  }

 private:
  struct Given {
    std::string written_name;
    std::string where;
    Origin::Kind kind;
  };

  [[noreturn]] static void fail_outside(const RawSetting& raw) {
    if (is_section(raw.key)) {
      throw usage_error(fmt::format("{}: {}: is a section, not a value", raw.where, raw.key),
                        fmt::format("write [{}] once, and its keys below", raw.key));
    }
    const std::string section = section_that_has(raw.key);
    throw usage_error(fmt::format("{}: {}: stands outside of all sections", raw.where, shown_name(raw.key)),
                      section.empty() ? fmt::format("the sections are: {}", fmt::join(section_names(), ", "))
                                      : fmt::format("write it under [{}]", section));
  }

  static const Setting* setting_of(const RawSetting& raw) {
    const Alias* alias = find_alias(raw.section, raw.key);
    return alias != nullptr ? find_setting("training", alias->new_name) : find_setting(raw.section, raw.key);
  }

  // Strings need no quotes on the command line; what is no TOML value is taken as a string, and checked as one.
  static Json override_value(const RawSetting& raw, const std::string& text) {
    const Setting* setting = setting_of(raw);
    const bool wants_string = setting != nullptr && setting->type == SettingType::kString;
    const bool wants_list = setting != nullptr && setting->type == SettingType::kStringList;
    const bool is_quoted = text[0] == '"' || text[0] == '\'';
    const bool is_alias_switch =
        find_alias(raw.section, raw.key) != nullptr && !find_alias(raw.section, raw.key)->values.empty();
    const bool is_plain =
        !is_alias_switch && ((wants_string && !is_quoted) || (wants_list && !is_quoted && text[0] != '['));
    if (!is_plain) {
      if (auto value = parse_toml_value(text)) return *std::move(value);
      if (is_quoted || text[0] == '[' || text[0] == '{') {
        throw usage_error(
            fmt::format("{}: {}.{}: the value is not TOML", raw.where, raw.section, shown_name(raw.key)),
            "strings inside of lists and tables stand in double quotes; quote the argument for the shell");
      }
    }
    auto value = parse_toml_value(toml_text(text));  // checks that it is UTF-8
    if (!value) throw usage_error(fmt::format("{}: the value is not valid UTF-8", raw.where));
    return *std::move(value);
  }

  void restore_default(const RawSetting& raw) {
    const Setting* setting = setting_of(raw);
    if (setting == nullptr) {
      if (find_unsupported(raw.section, raw.key) == nullptr) fail_unknown_key(raw);
      return;
    }
    setting->set(loaded_.config, setting->default_value);
    loaded_.origins[setting->name()] = Origin{};
    given_.erase(setting->name());
  }

  void add(RawSetting raw, Origin::Kind kind) {
    const std::string written_name = raw.section + "." + raw.key;
    if (const Alias* alias = find_alias(raw.section, raw.key)) rename(*alias, raw);
    if (const UnsupportedName* name = find_unsupported(raw.section, raw.key)) {
      add_unsupported(*name, raw);
      return;
    }
    const Setting* setting = find_setting(raw.section, raw.key);
    if (setting == nullptr) fail_unknown_key(raw);
    const auto earlier = given_.find(setting->name());
    if (earlier != given_.end() && earlier->second.kind == kind && earlier->second.written_name != written_name) {
      throw usage_error(fmt::format("{}: {}: {} already sets this at {}", raw.where, written_name,
                                    earlier->second.written_name, earlier->second.where),
                        fmt::format("keep only {}", setting->name()));
    }
    setting->set(loaded_.config, checked_value(*setting, raw.value, raw.where));
    loaded_.origins[setting->name()] = Origin{kind, raw.where};
    given_[setting->name()] = Given{written_name, raw.where, kind};
  }

  // Turns another name into that of the setting; an old one with a warning.
  void rename(const Alias& alias, RawSetting& raw) {
    const std::string old_name = fmt::format("{}.{}", raw.section, alias.old_name);
    if (alias.section == "training") {
      loaded_.warnings.push_back(fmt::format("{}: {} is an old name, write training.{}{}", raw.where, old_name,
                                             alias.new_name,
                                             alias.is_ratio ? " (below 1 it is a share of all steps)" : ""));
    }
    raw.section = "training";
    raw.key = alias.new_name;
    if (alias.is_ratio && (!raw.value.is_number() || !(raw.value.get<double>() >= 0 && raw.value.get<double>() < 1))) {
      throw usage_error(
          fmt::format("{}: {}: {} is not a share from 0 to below 1", raw.where, old_name, toml_text(raw.value)));
    }
    if (alias.values.empty()) return;
    const auto found = std::find_if(alias.values.begin(), alias.values.end(),
                                    [&](const auto& pair) { return pair.first == raw.value; });
    if (found == alias.values.end()) {
      throw usage_error(fmt::format("{}: {}: needs true or false, not {}", raw.where, old_name, toml_text(raw.value)));
    }
    raw.value = found->second;
  }

  void add_unsupported(const UnsupportedName& name, const RawSetting& raw) {
    if (is_harmless(name, raw.value)) return;
    if (name.other == UnsupportedName::Other::kWarn) {
      loaded_.warnings.push_back(
          fmt::format("{}: {}.{} has no effect: {}", raw.where, raw.section, raw.key, name.reason));
      return;
    }
    throw usage_error(fmt::format("{}: {}.{}: known to the Hugging Face Trainer, not supported by dtrain: {}",
                                  raw.where, raw.section, raw.key, name.reason),
                      "remove the line");
  }

  LoadedConfig& loaded_;
  std::map<std::string, Given> given_;
};

LoadedConfig read_all(std::string_view toml_bytes, const std::string& file_name,
                      const std::vector<std::string>& overrides, Parts parts) {
  LoadedConfig loaded;
  for (const Setting& setting : all_settings()) loaded.origins[setting.name()] = Origin{};
  Collector collector(loaded);
  collector.add_file(toml_bytes, file_name);
  for (const std::string& argument : overrides) collector.add_override(argument);
  resolve(loaded.config, loaded.origins, parts);
  return loaded;
}

// What a run from the command line cannot do without.
void check_inputs(const LoadedConfig& loaded, const std::string& file_name) {
  const auto require = [&](const char* name) {
    if (loaded.origins.at(name).kind != Origin::Kind::kDefault) return;
    throw usage_error(fmt::format("{}: {}: missing", file_name, name),
                      fmt::format("write it into the file, or pass --set {}=...", name));
  };
  if (!loaded.config.model.name) require("model.path");
  require("tokenizer.path");  // follows from model.path, as a rule
  require("data.train");
  const std::string& strategy = loaded.config.training.eval_strategy;
  if (strategy != "no" && !loaded.config.data.eval && !loaded.config.data.eval_fraction) {
    throw usage_error(fmt::format("{}: training.eval_strategy: \"{}\" needs evaluation data",
                                  loaded.origins.at("training.eval_strategy").where, strategy),
                      "set data.eval, or training.eval_strategy = \"no\"");
  }
}

}  // namespace

std::string Origin::text() const {
  switch (kind) {
    case Kind::kDefault:
      return "default";
    case Kind::kFile:
    case Kind::kCommandLine:
      return where;
    case Kind::kDerived:
      return fmt::format("from {}", where);
  }
  return "";
}

LoadedConfig load_config(std::string_view toml_bytes, const std::string& file_name,
                         const std::vector<std::string>& overrides, Parts parts) {
  LoadedConfig loaded = read_all(toml_bytes, file_name, overrides, parts);
  if (parts == Parts::kOfSettings) check_inputs(loaded, file_name);
  return loaded;
}

TrainConfig read_saved_config(std::string_view toml_bytes, const std::string& file_name) {
  return read_all(toml_bytes, file_name, {}, Parts::kOwn).config;
}

}  // namespace dtrain
