// dtrain: the commands. dist/run_job.h is the one place where failures become a line and an exit code.
#include <string>
#include <vector>

#include <fmt/format.h>
#include <sys/stat.h>

#include "core/error.h"
#include "dist/run_job.h"
#include "launcher/arguments.h"
#include "launcher/config_command.h"
#include "launcher/doctor_command.h"
#include "launcher/explain_command.h"
#include "launcher/export_command.h"
#include "launcher/inspect_command.h"
#include "launcher/launch_command.h"
#include "launcher/model_commands.h"
#include "launcher/prepare_command.h"
#include "launcher/report_command.h"
#include "launcher/slurm_command.h"
#include "launcher/sweep_command.h"
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
    case Arguments::Command::kExport:
      return first ? dtrain::run_export(arguments) : ExitCode::kDone;
    case Arguments::Command::kReport:
      return first ? dtrain::run_report(arguments) : ExitCode::kDone;
    case Arguments::Command::kExplain:
      return first ? dtrain::run_explain(arguments) : ExitCode::kDone;
    case Arguments::Command::kInspect:
      return first ? dtrain::run_inspect(arguments) : ExitCode::kDone;
    case Arguments::Command::kSweep:
      return dtrain::run_sweep(arguments, session.world());
    case Arguments::Command::kLaunch:
      return dtrain::run_launch(arguments, session.world());
    case Arguments::Command::kSlurm:
      return first ? dtrain::run_slurm(arguments) : ExitCode::kDone;
    case Arguments::Command::kDoctor:
      return dtrain::run_doctor(arguments, session);
    case Arguments::Command::kPrepare:
      return dtrain::run_prepare(arguments, session);
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
  ::umask(::umask(0) & 077);  // the owner must be able to read what he writes
  return dtrain::run_job(
      [&](dtrain::MpiSession& session) {
        return run(dtrain::parse_arguments(std::vector<std::string>(argv + 1, argv + argc)), session);
      },
      &dtrain::current_step);
}
