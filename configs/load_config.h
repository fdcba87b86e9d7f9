// load_config: bytes of a TOML file and overrides of the command line to a complete, checked and resolved TrainConfig.
// Local and deterministic: ranks that pass the same arguments get the same result.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "configs/train_config.h"

namespace dtrain {

// Where a value comes from.
struct Origin {
  enum class Kind { kDefault, kFile, kCommandLine, kDerived };
  Kind kind = Kind::kDefault;
  std::string where;  // kFile: "file:line:column"; kCommandLine: the argument; kDerived: the setting it follows from

  [[nodiscard]] std::string text() const;
};

using Origins = std::map<std::string, Origin>;  // by "section.key"; every setting has one

struct LoadedConfig {
  TrainConfig config;
  Origins origins;
  std::vector<std::string> warnings;  // one line each; for rank 0 to log
};

// Whose model, data and metrics a run has: those that the settings name, or a program's own, of which the settings need
// not speak.
enum class Parts { kOfSettings, kOwn };

// `overrides` are "section.key=value"; later ones win, and all of them win over the file. Values are TOML; strings need
// no quotes; an empty value restores the default. Throws Error(kUsage): "file:line:column: section.key: reason".
[[nodiscard]] LoadedConfig load_config(std::string_view toml_bytes, const std::string& file_name,
                                       const std::vector<std::string>& overrides = {},
                                       Parts parts = Parts::kOfSettings);

// Reads what to_toml wrote, of whichever Parts.
[[nodiscard]] TrainConfig read_saved_config(std::string_view toml_bytes, const std::string& file_name);

// Fills in the defaults that depend on other settings and refuses contradictions. load_config does this already; a
// program that builds a TrainConfig itself calls it. `origins` may be empty; it gets entries for what was derived.
void resolve(TrainConfig& config, Origins& origins, Parts parts = Parts::kOwn);

}  // namespace dtrain
