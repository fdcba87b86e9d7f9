#include "launcher/report_command.h"

#include <cstdio>
#include <filesystem>

#include <fmt/format.h>

#include "core/file.h"
#include "trainer/report/report_page.h"

namespace dtrain {

ExitCode run_report(const Arguments& arguments) {
  const std::filesystem::path folder = expand_home(arguments.folder);
  const RunFiles run = read_run_files(folder);
  const std::filesystem::path path = arguments.out.empty() ? folder / "report.html" : expand_home(arguments.out);
  replace_file(path, report_html(run));
  fmt::print("the report is in {}\n", path.string());
  std::fflush(stdout);
  return ExitCode::kDone;
}

}  // namespace dtrain
