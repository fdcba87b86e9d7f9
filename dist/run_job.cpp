#include "dist/run_job.h"

#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>

#include "core/fault.h"
#include "core/log.h"
#include "dist/failure.h"
#include "dist/watchdog.h"

namespace dtrain {

int run_job(const std::function<ExitCode(MpiSession&)>& work, const std::function<std::int64_t()>& step) {
  std::optional<MpiSession> session;
  Watchdog& watchdog = Watchdog::process();
  try {
    watchdog.start();
    {
      const WatchSection section(Section::kInit);
      session.emplace();
    }
    const World& world = session->world();
    watchdog.join_job(world, session->host());
    log::set_up(world.rank, world.world_size, log::Level::kInfo, log::Level::kWarning);
    set_up_faults(world.rank);
    const ExitCode code = work(*session);
    if (code != ExitCode::kDone) {
      // A rank that leaves with a code ends the job: nobody may still be writing.
      session->host().barrier("end of the run");
      end_job(code);
    }
    const WatchSection section(Section::kFinalize);
    session->finish();
    watchdog.leave_job();
    return EXIT_SUCCESS;
  } catch (const PeerFailed& error) {
    if (error.code() == ExitCode::kStalled) watchdog.end_stalled("");
    end_job(error.code());
  } catch (const std::exception& exception) {
    const Error error = as_error(exception);
    if (error.code() == ExitCode::kStalled) watchdog.end_stalled(error.what());
    if (report_failure(error.code())) {
      const World world = session ? session->world() : World{};
      const std::string text = failure_text(error, world, step ? step() : 0);
      std::fwrite(text.data(), 1, text.size(), stderr);
    }
    end_job(error.code());
  }
}

}  // namespace dtrain
