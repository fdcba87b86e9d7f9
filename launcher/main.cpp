// dtrain: the one place where failures become a line and an exit code.
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "core/error.h"
#include "core/fault.h"
#include "core/log.h"
#include "dist/mpi_session.h"
#include "launcher/arguments.h"
#include "launcher/config_command.h"
#include "launcher/doctor_command.h"
#include "launcher/failure.h"
#include "launcher/model_commands.h"
#include "launcher/report_command.h"
#include "launcher/train_command.h"
#include "launcher/versions.h"
#include "trainer/position.h"

namespace {

using dtrain::Arguments;
using dtrain::ExitCode;

ExitCode run(const Arguments& arguments, dtrain::MpiSession& session) {
  const bool first = session.world().is_first();
  switch (arguments.command) {
    case Arguments::Command::kHelp:
      if (first) fmt::print("{}", dtrain::help_text(arguments.section));
      return ExitCode::kDone;
    case Arguments::Command::kVersion:
      if (first) fmt::print("{}", dtrain::version_text());
      return ExitCode::kDone;
    case Arguments::Command::kConfig:
      return first ? dtrain::run_config(arguments) : ExitCode::kDone;
    case Arguments::Command::kReport:
      return first ? dtrain::run_report(arguments) : ExitCode::kDone;
    case Arguments::Command::kDoctor:
      return dtrain::run_doctor(arguments, session);
    case Arguments::Command::kTrain:
      return dtrain::run_train(arguments, session);
    case Arguments::Command::kEvaluate:
    case Arguments::Command::kPredict:
      return dtrain::run_model(arguments, session);
  }
  return ExitCode::kInternal;
}

}  // namespace

int main(int argc, char** argv) {
  std::optional<dtrain::MpiSession> session;
  try {
    session.emplace();
    const dtrain::World& world = session->world();
    dtrain::log::set_up(world.rank, world.world_size, dtrain::log::Level::kInfo, dtrain::log::Level::kWarning);
    dtrain::set_up_faults(world.rank);
    const ExitCode code = run(dtrain::parse_arguments(std::vector<std::string>(argv + 1, argv + argc)), *session);
    if (code != ExitCode::kDone) {
      // A rank that leaves with a code ends the job: nobody may still be writing.
      session->host().barrier("end of the run");
      dtrain::end_job(code);
    }
    session->finish();
    return EXIT_SUCCESS;
  } catch (const dtrain::PeerFailed& error) {
    dtrain::end_job(error.code());
  } catch (const std::exception& exception) {
    const dtrain::Error error = dtrain::as_error(exception);
    if (dtrain::report_failure(error.code())) {
      const dtrain::World world = session ? session->world() : dtrain::World{};
      const std::string text = dtrain::failure_text(error, world, dtrain::current_step());
      std::fwrite(text.data(), 1, text.size(), stderr);
    }
    dtrain::end_job(error.code());
  }
}
