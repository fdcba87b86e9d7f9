// The step that this process is working on, for messages about failures: written by the loop, read from anywhere.
#pragma once

#include <cstdint>

namespace dtrain {

// The optimizer step being computed, saved or evaluated; 0 before training. One training at a time per process.
[[nodiscard]] std::int64_t current_step() noexcept;
void set_current_step(std::int64_t step) noexcept;

}  // namespace dtrain
