// Failures: any exception as an Error, and the one line that a failing job prints.
#pragma once

#include <cstdint>
#include <exception>
#include <string>

#include "core/error.h"
#include "dist/world.h"

namespace dtrain {

// `exception` as an Error with exit code and hint: an Error unchanged, memory that ran out (std::bad_alloc, LibTorch's
// allocators) as kInternal with what to do, file system errors as kIo, everything else as kInternal with its first
// line.
[[nodiscard]] Error as_error(const std::exception& exception);

// "error: rank 1 on node7 at step 3: message" and a hint line. What is the same on every rank (settings, disagreement)
// names no rank; one rank alone has no number; before training there is no step.
[[nodiscard]] std::string failure_text(const Error& error, const World& world, std::int64_t step);

}  // namespace dtrain
