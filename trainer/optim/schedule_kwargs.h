// lr_scheduler_kwargs: which schedules there are, and what each takes.
#pragma once

#include <string>

#include "core/json.h"

namespace dtrain {

// Throws Error(kUsage), with the nearest name, for a schedule or a key that is not known and for a value that cannot be
// that key's.
void check_schedule_kwargs(const std::string& schedule, const Json& kwargs);

}  // namespace dtrain
