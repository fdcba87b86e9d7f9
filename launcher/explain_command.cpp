#include "launcher/explain_command.h"

#include <cstdio>
#include <filesystem>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "core/file.h"
#include "dist/hang_dump.h"
#include "dist/hang_report.h"
#include "trainer/checkpoint/run_json.h"

namespace dtrain {

ExitCode run_explain(const Arguments& arguments) {
  namespace fs = std::filesystem;
  const fs::path folder = expand_home(arguments.folder);
  const fs::path dumps_folder = hang_folder(folder);
  std::error_code ignored;
  const bool has_dumps = fs::is_directory(dumps_folder, ignored);
  const std::optional<RunRecord> record = read_run_record(folder);
  if (!has_dumps && !record) {
    throw usage_error(fmt::format("{}: no run: neither run.json nor hang/ is there", folder.string()),
                      "name the output_dir of a run");
  }
  const Dumps dumps = has_dumps ? read_dumps(dumps_folder) : Dumps();
  for (const std::string& line : dumps.damaged) fmt::print(stderr, "warning: {}\n", line);
  if (dumps.by_rank.empty()) {
    if (!dumps.damaged.empty()) throw data_error(dumps.damaged.front());
    fmt::print(
        "no rank of this run has written a dump: it did not stall{}\n",
        record && !record->reason.empty() ? fmt::format(" (run.json: {}: {})", record->state, record->reason) : "");
  } else {
    const HangReport report = explain_hang(dumps.by_rank);
    fmt::print("{}\n", report.verdict);
    if (!report.suspects.empty()) fmt::print("suspects: {}\n", fmt::join(report.suspects, ", "));
    for (const std::string& line : report.ranks) fmt::print("  {}\n", line);
  }
  std::fflush(stdout);
  return ExitCode::kDone;
}

}  // namespace dtrain
