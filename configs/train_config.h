// TrainConfig: all settings of a run. What load_config returns is complete, checked and resolved (defaults that depend
// on other settings are filled in), and equal on all ranks when config_digest is. A plain value: copy it, read it
// anywhere. Enumerations are strings, checked against their choices on reading. Paths are kept as written: open them
// through expand_home (core/file.h), so that the configuration of a run does not depend on who starts it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"

namespace dtrain {

// One struct per section; members as in configs/settings.def, where each is documented.
#define DTRAIN_SECTION(section, type, doc) struct type {
#define DTRAIN_SETTING(section, key, type, default_value, constraint, setting_class, doc) type key = default_value;
#define DTRAIN_SECTION_END(section) \
  }                                 \
  ;
#include "configs/settings.def"
#undef DTRAIN_SECTION
#undef DTRAIN_SETTING
#undef DTRAIN_SECTION_END

struct TrainConfig {
#define DTRAIN_SECTION(section, type, doc) type section;
#define DTRAIN_SETTING(section, key, type, default_value, constraint, setting_class, doc)
#define DTRAIN_SECTION_END(section)
#include "configs/settings.def"
#undef DTRAIN_SECTION
#undef DTRAIN_SETTING
#undef DTRAIN_SECTION_END
};

}  // namespace dtrain
