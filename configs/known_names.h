// Names under [training] that are no settings of dtrain, but that a user of the Hugging Face Trainer may write: old
// names of settings, and arguments of the Trainer that dtrain does not have. Source: transformers 5.17
// TrainingArguments, and the arguments that earlier versions had.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/json.h"

namespace dtrain {

// An old name: accepted with a warning that gives the new one.
struct Alias {
  std::string old_name;
  std::string new_name;
  std::vector<std::pair<Json, Json>> values;  // old value -> new value; empty: unchanged
  bool is_ratio = false;                      // the value must be in [0, 1)
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
