#include "launcher/report_command.h"

#include <cstdio>
#include <filesystem>

#include <fmt/format.h>

#include "core/file.h"
#include "trainer/report/report_page.h"

namespace dtrain {

ExitCode run_report(const Arguments& arguments) {
  namespace fs = std::filesystem;
  const fs::path folder = expand_home(arguments.folder);
  const RunFiles run = read_run_files(folder);
  const fs::path path = arguments.out.empty() ? folder / "report.html" : expand_home(arguments.out);
  std::error_code ignored;
  if (const fs::path parent = fs::absolute(path).parent_path(); !fs::is_directory(parent, ignored)) {
    throw usage_error(fmt::format("--out {}: there is no folder {}", arguments.out, parent.string()),
                      "create it, or name another file");
  }
  replace_file(path, report_html(run));
  fmt::print("the report is in {}\n", path.string());
  std::fflush(stdout);
  return ExitCode::kDone;
}

}  // namespace dtrain
