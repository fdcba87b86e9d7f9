// Giving up a communicator whose abort may itself never return (ncclCommAbort can wait for a kernel that does not end).
#pragma once

#include <exception>
#include <functional>

#include "dist/host_comm.h"
#include "dist/world.h"

namespace dtrain {

// Runs `work` in a thread of its own; whether it has returned after `seconds`. If not, the thread lives on.
[[nodiscard]] bool finishes_within(double seconds, std::function<void()> work);

// Ends the job for `reason`: the one error line, unless another rank of the node has printed it, then the exit. A stall
// is the watchdog's to end, with dump and report. Any thread.
[[noreturn]] void fail_job(const std::exception& reason, const World& world, std::int64_t step);

// Runs `abort`; when it has not returned after `seconds` the process ends for `reason`: the main thread may be waiting
// for the same device and would never throw it.
void abort_or_end(double seconds, std::function<void()> abort, const std::exception_ptr& reason, const World& world,
                  std::int64_t step);

}  // namespace dtrain
