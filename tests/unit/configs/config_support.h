// What the tests of configs/ share.
#pragma once

#include <string>
#include <vector>

#include "configs/load_config.h"
#include "configs/setting.h"
#include "core/error.h"

namespace dtrain::test {

// A file with the two required settings; `more` is appended under [training], which comes last. Line of its first
// line: 7.
[[nodiscard]] std::string toml_with(const std::string& more);

// The same, with data.eval as well: line 8.
[[nodiscard]] std::string toml_with_eval(const std::string& more);

[[nodiscard]] LoadedConfig load(const std::string& toml, const std::vector<std::string>& overrides = {});

// "message | hint" of the Error(kUsage) that loading gives; "" when it gives none.
[[nodiscard]] std::string error_of(const std::string& toml, const std::vector<std::string>& overrides = {});

// A valid value of `setting` other than its default.
[[nodiscard]] Json other_value(const Setting& setting);

}  // namespace dtrain::test
