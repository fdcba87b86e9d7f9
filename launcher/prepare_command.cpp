#include "launcher/prepare_command.h"

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "core/text_table.h"
#include "launcher/inputs.h"
#include "launcher/job_setup.h"

namespace dtrain {
namespace {

struct Lengths {
  std::int64_t tokens = 0;
  std::int64_t longest = 0;
  std::int64_t at_limit = 0;  // examples of max_length tokens: cut, or just full
};

Lengths measure(const Dataset& data, std::int64_t max_length) {
  Lengths lengths;
  for (std::int64_t i = 0; i < data.size(); ++i) {
    const std::int64_t length = data.length(i);
    lengths.tokens += length;
    lengths.longest = std::max(lengths.longest, length);
    if (length >= max_length) ++lengths.at_limit;
  }
  return lengths;
}

std::vector<std::string> row_of(const LoadedData& loaded, const Dataset& data, std::int64_t max_length) {
  const Lengths lengths = measure(data, max_length);
  return {loaded.name,
          std::to_string(loaded.files),
          std::to_string(data.size()),
          std::to_string(lengths.tokens),
          std::to_string(lengths.longest),
          fmt::format("{:.1f} %", 100.0 * static_cast<double>(lengths.at_limit) / static_cast<double>(data.size())),
          loaded.built ? fmt::format("{:.2f}", loaded.seconds) : "was there",
          loaded.store.string()};
}

void print_table(const std::vector<std::vector<std::string>>& rows) {
  const std::vector<std::size_t> widths = column_widths(rows);
  for (const auto& row : rows) {
    for (std::size_t i = 0; i + 1 < row.size(); ++i) {
      // Names to the left, numbers to the right.
      fmt::print("{}  ", i == 0 ? fmt::format("{:<{}}", row[i], widths[i]) : fmt::format("{:>{}}", row[i], widths[i]));
    }
    fmt::print("{}\n", row.back());
  }
}

}  // namespace

ExitCode run_prepare(const Arguments& arguments, MpiSession& session) {
  const World& world = session.world();
  const TrainConfig config = agreed_config(arguments, world, session.host());
  session.host().set_deadline(static_cast<double>(config.training.ddp_timeout));
  const JobDevice job = set_up_device(config.training, arguments, session);
  const Inputs inputs = load_inputs(config, world, session.host(), job.threads * world.local_size);
  if (!world.is_first()) return ExitCode::kDone;
  std::vector<std::vector<std::string>> rows = {{"data", "files", "examples", "tokens", "longest",
                                                 fmt::format("of {} tokens", inputs.max_length), "seconds", "store"}};
  for (const LoadedData& loaded : inputs.loaded) {
    const Dataset& data = loaded.name == "training" ? *inputs.train_data : *inputs.eval_data;
    rows.push_back(row_of(loaded, data, inputs.max_length));
  }
  print_table(rows);
  std::fflush(stdout);
  return ExitCode::kDone;
}

}  // namespace dtrain
