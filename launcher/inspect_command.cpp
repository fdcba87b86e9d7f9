#include "launcher/inspect_command.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <vector>

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include "core/file.h"
#include "core/text_table.h"
#include "trainer/checkpoint/checkpoint_store.h"
#include "trainer/checkpoint/run_json.h"

namespace dtrain {
namespace fs = std::filesystem;
namespace {

using Rows = std::vector<std::vector<std::string>>;

constexpr const char* kManifest = "manifest.json";

// The last column, which may be long, is to the left.
void print_table(Rows rows) {
  std::vector<std::string> notes;
  for (std::vector<std::string>& row : rows) {
    notes.push_back(row.back());
    row.pop_back();
  }
  const std::vector<std::size_t> widths = column_widths(rows);
  for (std::size_t i = 0; i < rows.size(); ++i) fmt::print("{}  {}\n", right_aligned(rows[i], widths), notes[i]);
}

std::string size_text(std::uint64_t bytes) { return fmt::format("{:.1f} MB", static_cast<double>(bytes) / 1e6); }

std::string time_of(const fs::path& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) return "-";
  return fmt::format("{:%Y-%m-%d %H:%M:%S}", fmt::gmtime(info.st_mtime));
}

std::uint64_t bytes_in(const fs::path& folder) {
  std::uint64_t bytes = 0;
  std::error_code code;
  for (fs::recursive_directory_iterator entry(folder, code), end; !code && entry != end; entry.increment(code)) {
    std::error_code ignored;
    if (entry->is_regular_file(ignored)) bytes += entry->file_size(ignored);
  }
  return bytes;
}

std::string text_of(const Json& value) {
  if (value.is_null()) return "none";
  return value.is_string() ? value.get<std::string>() : value.dump();
}

void print_facts(const Json& manifest) {
  const Json facts = manifest.value("facts", Json::object());
  if (facts.contains("world_size")) fmt::print("ranks:          {}\n", text_of(facts["world_size"]));
  if (facts.contains("train_digest")) fmt::print("training data:  {}\n", text_of(facts["train_digest"]));
  fmt::print("settings:       {}\n", text_of(manifest.value("config_digest", Json())));
}

std::optional<Json> manifest_of(const fs::path& folder) {
  try {
    return read_manifest(folder);
  } catch (const Error&) {
    return std::nullopt;
  }
}

ExitCode inspect_checkpoint(const fs::path& folder) {
  const std::string damage = checkpoint_damage(folder);
  const std::optional<Json> manifest = manifest_of(folder);
  if (manifest) {
    fmt::print("checkpoint of step {}, saved {} UTC\n", manifest->at("step").dump(), time_of(folder / kManifest));
    print_facts(*manifest);
    Rows rows = {{"file", "size", "digest (XXH3-128)", "state"}};
    for (const auto& [name, entry] : manifest->at("files").items()) {
      std::string state;
      try {
        state = file_damage(folder / name, entry);
      } catch (const Error& error) {
        state = error.what();
      }
      rows.push_back({name, size_text(entry.at("bytes").get<std::uint64_t>()), text_of(entry.at("xxh3_128")),
                      state.empty() ? "intact" : "DAMAGED: " + state});
    }
    fmt::print("\n");
    print_table(std::move(rows));
    fmt::print("\n");
  }
  if (damage.empty()) {
    fmt::print("intact: every byte is as it was written\n");
    return ExitCode::kDone;
  }
  fmt::print("DAMAGED: {}\n", damage);
  return ExitCode::kData;
}

void print_run(const fs::path& folder, const RunRecord& record) {
  fmt::print("run:            {}, step {}", record.state, record.step);
  if (record.exit) fmt::print(", exit code {}", *record.exit);
  fmt::print("\n");
  if (!record.reason.empty()) fmt::print("reason:         {}\n", record.reason);
  for (const std::string& suspect : record.suspects) fmt::print("suspect:        {}\n", suspect);
  if (record.best_step) {
    fmt::print("best:           step {}{}\n", *record.best_step,
               record.best_metric ? fmt::format(", metric {:g}", *record.best_metric) : "");
  }
  std::error_code ignored;
  if (fs::exists(folder / "model.safetensors", ignored)) fmt::print("final model:    in {}\n", folder.string());
}

// Folders named like a checkpoint, with and without manifest, oldest first.
std::vector<Checkpoint> named_checkpoints(const fs::path& folder) {
  std::vector<Checkpoint> found;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const auto step = step_of_name(entry.path().filename().string());
    if (step && entry.is_directory()) found.push_back({*step, entry.path()});
  }
  std::sort(found.begin(), found.end(), [](const Checkpoint& a, const Checkpoint& b) { return a.step < b.step; });
  return found;
}

void print_leftovers(const fs::path& folder) {
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(".stage-") || name.starts_with(".dead-") || name.starts_with(".aside-")) {
      fmt::print("left half-way:  {} ({}); the next run of this folder clears it away\n", name,
                 size_text(bytes_in(entry.path())));
    }
  }
}

ExitCode inspect_run(const fs::path& folder, const std::vector<Checkpoint>& checkpoints,
                     const std::optional<RunRecord>& record) {
  if (record) print_run(folder, *record);
  std::optional<Json> newest;  // manifest of the newest intact one
  std::optional<std::int64_t> intact;
  std::size_t damaged = 0;
  Rows rows = {{"checkpoint", "step", "size", "saved (UTC)", "state"}};
  for (const Checkpoint& checkpoint : checkpoints) {
    const std::string damage = checkpoint_damage(checkpoint.folder);
    std::string state = damage.empty() ? "intact" : "DAMAGED: " + damage;
    if (damage.empty()) {
      intact = checkpoint.step;
      newest = manifest_of(checkpoint.folder);
    } else {
      ++damaged;
    }
    if (record && record->best_step == checkpoint.step) state += ", best";
    if (checkpoint.step == checkpoints.back().step) state += ", last";
    rows.push_back({checkpoint.folder.filename().string(), std::to_string(checkpoint.step),
                    size_text(bytes_in(checkpoint.folder)), time_of(checkpoint.folder / kManifest), state});
  }
  if (newest) print_facts(*newest);
  print_leftovers(folder);
  if (checkpoints.empty()) {
    fmt::print("checkpoints:    none\n");
    return ExitCode::kDone;
  }
  fmt::print("\n");
  print_table(std::move(rows));
  fmt::print("\n{} checkpoint{}, {} damaged; ", checkpoints.size(), checkpoints.size() == 1 ? "" : "s", damaged);
  if (intact) {
    fmt::print("resume_from_checkpoint = \"latest\" goes on from step {}\n", *intact);
  } else {
    fmt::print("there is none to go on from\n");
  }
  return damaged == 0 ? ExitCode::kDone : ExitCode::kData;
}

}  // namespace

ExitCode run_inspect(const Arguments& arguments) {
  const fs::path folder = fs::absolute(expand_home(arguments.folder)).lexically_normal();
  std::error_code ignored;
  if (!fs::is_directory(folder, ignored)) {
    throw usage_error(fmt::format("inspect: there is no folder {}", arguments.folder),
                      "name the output_dir of a run, or a checkpoint in it");
  }
  ExitCode code = ExitCode::kDone;
  // "results/imdb/" has an empty last name.
  const fs::path named = folder.has_filename() ? folder : folder.parent_path();
  if (fs::exists(named / kManifest, ignored) || step_of_name(named.filename().string())) {
    code = inspect_checkpoint(named);
  } else {
    const std::vector<Checkpoint> checkpoints = named_checkpoints(named);
    const std::optional<RunRecord> record = read_run_record(named);
    if (checkpoints.empty() && !record) {
      throw usage_error(fmt::format("inspect: {} holds neither a run nor a checkpoint", arguments.folder),
                        "name the output_dir of a run (it has a run.json), or a checkpoint-<step> folder in it");
    }
    code = inspect_run(named, checkpoints, record);
  }
  std::fflush(stdout);
  return code;
}

std::string inspect_help() {
  return R"(dtrain inspect FOLDER: the checkpoints of a run, and whether they are intact. It changes nothing, needs no GPU,
and may be used while the run goes on.

FOLDER is
  an output_dir          prints how the run stands (run.json) and a table of its checkpoints, each verified
  a checkpoint-<step>    prints the table of its files, each verified

What the columns and lines mean
  state                  intact: every byte is as it was written (size and digest in manifest.json agree);
                         DAMAGED: the first file that is not, and what is wrong with it
  best, last             the two that save_total_limit never deletes
  ranks, training data   a run that resumes must have the same: else it ends with exit code 66
  settings               digest of all settings; checkpoint-<step>/train.toml has them in full
  left half-way          a folder that a killed process was writing or deleting; it never counts as a checkpoint

Exit codes
   0  all checkpoints are intact (or there are none yet)
  64  the folder holds neither a run nor a checkpoint
  65  at least one is damaged. resume_from_checkpoint = "latest" passes over it; delete its folder, or copy it again
      from where it is whole

Examples
  dtrain inspect results/imdb
  dtrain inspect results/imdb/checkpoint-500
  dtrain inspect results/imdb && dtrain imdb.toml --set training.resume_from_checkpoint=latest
)";
}

}  // namespace dtrain
