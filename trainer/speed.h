// The speed keys of the Trainer's records: <prefix>_runtime (4 decimals), _samples_per_second and _steps_per_second
// (3).
#pragma once

#include <string>

#include "core/json.h"

namespace dtrain {

void add_speed(OrderedJson& record, const std::string& prefix, double seconds, double samples, double steps);

}  // namespace dtrain
