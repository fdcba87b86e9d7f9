// The collators that data.collator may name: one table for the checks of the configuration and for plugins.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace dtrain {

// Those that fit a task, besides "auto".
[[nodiscard]] const std::vector<std::string>& collators_of_task(const std::string& task);
// Of all tasks, and "auto".
[[nodiscard]] const std::vector<std::string>& collator_names();
[[nodiscard]] bool is_collator_name(std::string_view name);

}  // namespace dtrain
