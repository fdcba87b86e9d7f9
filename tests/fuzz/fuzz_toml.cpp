// TOML, the whole path from the text to the settings. The input is a file, then overrides of the command line, with a
// line of "---" before each.
#include <cmath>

#include "configs/config_text.h"
#include "configs/load_config.h"
#include "configs/setting.h"
#include "configs/sweep_settings.h"
#include "configs/toml_reader.h"
#include "core/json.h"
#include "tests/fuzz/fuzz.h"

namespace dtrain {
namespace {

using fuzz::require;

bool holds_nan(const Json& value) {
  if (value.is_number_float()) return std::isnan(value.get<double>());
  for (const Json& item : value) {
    if (value.is_structured() && holds_nan(item)) return true;
  }
  return false;
}

// What was accepted reads back as it is, from each of the texts that are written about it.
void check_config(const LoadedConfig& loaded) {
  const std::string saved = to_toml(loaded.config);
  require(fuzz::accepts([&] {
            const TrainConfig again = read_saved_config(saved, "saved.toml");
            require(diff(loaded.config, again).empty(), "to_toml does not round-trip", saved);
            require(config_digest(again) == config_digest(loaded.config), "digests differ", saved);
          }),
          "what to_toml wrote is refused", saved);
  const std::string printed = print_config(loaded);
  require(fuzz::accepts([&] {
            const TrainConfig again = read_saved_config(printed, "printed.toml");
            require(config_digest(again) == config_digest(loaded.config), "print_config does not round-trip", printed);
          }),
          "what print_config wrote is refused", printed);
}

void check_value(std::string_view text) {
  const std::optional<Json> value = parse_toml_value(text);
  if (!value || holds_nan(*value)) return;
  const std::string written = toml_text(*value);
  const std::optional<Json> again = parse_toml_value(written);
  require(again.has_value() && *again == *value, "toml_text does not round-trip", written);
}

void check_sweep(std::string_view toml, const std::vector<std::string>& overrides, const TrainConfig& base) {
  fuzz::accepts([&] {
    const SweepSettings sweep = read_sweep_settings(toml, "run.toml", overrides, base);
    require(!sweep.space.empty() && sweep.trials >= 1, "a sweep without trials");
    for (const SweepParameter& parameter : sweep.space) {
      const bool choice = parameter.kind == SweepParameter::Kind::kChoice;
      require(choice ? !parameter.values.empty() : parameter.low <= parameter.high && std::isfinite(parameter.high),
              "a parameter without values", parameter.name);
    }
    require(grid_size(sweep.space) >= 0, "a grid of less than no points");
    static_cast<void>(sweep.identity().dump());
  });
}

void check(fuzz::Input input) {
  const std::string toml(input.until("\n---\n"));
  std::vector<std::string> overrides;
  std::vector<std::string> sweep_overrides;
  while (!input.empty()) {
    std::string argument(input.until("\n---\n"));
    check_value(std::string_view(argument).substr(std::min(argument.find('=') + 1, argument.size())));
    (is_sweep_override(argument) ? sweep_overrides : overrides).push_back(std::move(argument));
  }
  fuzz::accepts([&] {
    const RawSettings raw = read_toml(toml, "run.toml");
    for (const RawSetting& setting : raw.settings) {
      require(setting.where.starts_with("run.toml:"), "a setting without a place", setting.key);
    }
  });
  TrainConfig base;
  fuzz::accepts([&] {
    const LoadedConfig loaded = load_config(toml, "run.toml", overrides);
    check_config(loaded);
    base = loaded.config;
  });
  fuzz::accepts([&] { check_config(load_config(toml, "run.toml", overrides, Parts::kOwn)); });
  base.data.eval_fraction = 0.5;
  check_sweep(toml, sweep_overrides, base);
}

}  // namespace
}  // namespace dtrain

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  dtrain::check({data, size});
  return 0;
}
