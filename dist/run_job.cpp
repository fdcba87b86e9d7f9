#include "dist/run_job.h"

#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>

#include "core/fault.h"
#include "core/log.h"
#include "dist/failure.h"

namespace dtrain {

int run_job(const std::function<ExitCode(MpiSession&)>& work, const std::function<std::int64_t()>& step) {
  std::optional<MpiSession> session;
  try {
    session.emplace();
    const World& world = session->world();
    log::set_up(world.rank, world.world_size, log::Level::kInfo, log::Level::kWarning);
    set_up_faults(world.rank);
    const ExitCode code = work(*session);
    if (code != ExitCode::kDone) {
      // A rank that leaves with a code ends the job: nobody may still be writing.
      session->host().barrier("end of the run");
      end_job(code);
    }
    session->finish();
    return EXIT_SUCCESS;
  } catch (const PeerFailed& error) {
    end_job(error.code());
  } catch (const std::exception& exception) {
    const Error error = as_error(exception);
    if (report_failure(error.code())) {
      const World world = session ? session->world() : World{};
      const std::string text = failure_text(error, world, step ? step() : 0);
      std::fwrite(text.data(), 1, text.size(), stderr);
    }
    end_job(error.code());
  }
}

}  // namespace dtrain
