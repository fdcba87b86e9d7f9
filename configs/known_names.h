// Names that are no settings of dtrain, but that a user may write: old names of settings of the Hugging Face Trainer,
// the short ones of [hub], and arguments of the Trainer that dtrain does not have. Source: transformers 5.17
// TrainingArguments, and the arguments that earlier versions had.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/json.h"

namespace dtrain {

// Another name of a setting under [training]. Those in that section are old ones: accepted with a warning that gives
// the new one. Those in a section of their own ([hub]) are as good.
struct Alias {
  std::string old_name;
  std::string new_name;
  std::vector<std::pair<Json, Json>> values;  // old value -> new value; empty: unchanged
  bool is_ratio = false;                      // the value must be in [0, 1)
  std::string section = "training";           // where this name stands
};

// An argument of the Trainer that dtrain does not have.
struct UnsupportedName {
  enum class Other { kRefuse, kWarn };
  std::string name;
  Json peer_default;             // null: None
  Json accepted;                 // further values that are what dtrain does anyway, or that ask for nothing
  std::string reason;            // completes "not supported by dtrain: ..."
  Other other = Other::kRefuse;  // what any other value gives
};

[[nodiscard]] const std::vector<Alias>& all_aliases();
[[nodiscard]] const Alias* find_alias(std::string_view section, std::string_view key);

[[nodiscard]] const std::vector<UnsupportedName>& all_unsupported_names();
[[nodiscard]] const UnsupportedName* find_unsupported(std::string_view section, std::string_view key);

// Whether a value asks for nothing that dtrain would have to do.
[[nodiscard]] bool is_harmless(const UnsupportedName& name, const Json& value);

}  // namespace dtrain
