#include "dist/run_job.h"

#include <cstdlib>
#include <optional>

#include "core/fault.h"
#include "core/log.h"
#include "dist/abort.h"
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
  } catch (const std::exception& exception) {
    fail_job(exception, session ? session->world() : World{}, step ? step() : 0);
  }
}

}  // namespace dtrain
