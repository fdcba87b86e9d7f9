// run_job: the main function of a program whose processes are the ranks of one job.
//
//   int main() {
//     return dtrain::run_job([](dtrain::MpiSession& session) {
//       train(session.world(), session.host());
//       return dtrain::ExitCode::kDone;
//     });
//   }
#pragma once

#include <cstdint>
#include <functional>

#include "core/error.h"
#include "dist/mpi_session.h"

namespace dtrain {

// Collective. Starts the session, the log and the fault points, runs `work` on every rank and ends all of them with one
// exit code: the one it returns, or that of the first exception that leaves it, which one rank prints as a line with
// the reason and a hint. `step`, for that line, tells the step being worked on, 0 when there is none; it may be empty.
// Returns what main shall return; a code other than kDone ends the process here.
int run_job(const std::function<ExitCode(MpiSession&)>& work, const std::function<std::int64_t()>& step = {});

}  // namespace dtrain
