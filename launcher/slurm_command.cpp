#include "launcher/slurm_command.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "configs/load_config.h"
#include "core/child_process.h"
#include "core/file.h"
#include "launcher/config_file.h"

namespace dtrain {
namespace fs = std::filesystem;
namespace {

// For a word of a shell: '...', with ' itself as '\''.
std::string quoted(const std::string& text) {
  const bool plain = !text.empty() && std::all_of(text.begin(), text.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 || std::string_view("/._-=+:,@%").find(static_cast<char>(c)) != std::string_view::npos;
  });
  if (plain) return text;
  std::string result = "'";
  for (const char c : text) result += c == '\'' ? "'\\''" : std::string(1, c);
  return result + "'";
}

// A value of a #SBATCH line: Slurm reads the rest of the line as words, with double quotes.
std::string sbatch_value(const std::string& text) {
  return text.find_first_of(" \t#") == std::string::npos ? text : "\"" + text + "\"";
}

void check_one_line(const std::string& option, const std::string& text) {
  if (std::none_of(text.begin(), text.end(), [](unsigned char c) { return c < ' '; }) &&
      text.find('"') == std::string::npos) {
    return;
  }
  throw usage_error(fmt::format("slurm: {} holds a quotation mark or a control character", option),
                    "a line of a batch script cannot carry it");
}

void submit(const fs::path& script) {
  const std::optional<fs::path> sbatch = find_program("sbatch");
  if (!sbatch) {
    throw usage_error("slurm: --submit: there is no program sbatch on $PATH",
                      fmt::format("the script is written; on a machine of the cluster: sbatch {}", script.string()));
  }
  ChildProcess child({.arguments = {sbatch->string(), script.string()}});
  if (const int code = child.wait(); code != 0) {
    throw usage_error(fmt::format("slurm: sbatch refused the script: exit code {}", code),
                      fmt::format("its reason stands above; the script is {}", script.string()));
  }
}

}  // namespace

std::string slurm_script(const Arguments& arguments, const TrainConfig& config, const std::string& program,
                         const std::string& folder) {
  const SlurmJob& job = arguments.slurm;
  const std::string name = job.name.empty() ? fs::path(arguments.file).stem().string() : job.name;
  const int gpus = job.gpus_per_node >= 0 ? job.gpus_per_node : config.training.use_cpu ? 0 : job.ranks_per_node;
  std::vector<std::pair<std::string, std::string>> options = {
      {"job-name", name},
      {"nodes", std::to_string(job.nodes)},
      {"ntasks-per-node", std::to_string(job.ranks_per_node)},
      {"chdir", folder},
      {"output", name + "-%j.log"},
      {"open-mode", "append"},
      {"signal", "USR2@120"},
  };
  const auto add = [&](const std::string& option, const std::string& value) {
    if (!value.empty()) options.emplace_back(option, value);
  };
  add("time", job.time);
  add("partition", job.partition);
  add("account", job.account);
  if (gpus > 0) add("gpus-per-node", std::to_string(gpus));
  if (job.cpus_per_rank > 0) add("cpus-per-task", std::to_string(job.cpus_per_rank));
  std::string lines;
  for (const auto& [option, value] : options) {
    check_one_line("--" + option, value);
    lines += fmt::format("#SBATCH --{}={}\n", option, sbatch_value(value));
  }
  for (const std::string& option : job.sbatch_options) {
    check_one_line("--sbatch", option);
    lines += fmt::format("#SBATCH {}\n", option);
  }

  std::vector<std::string> command = {program, "launch",         "--launcher",
                                      "srun",  "--max-restarts", std::to_string(arguments.max_restarts)};
  if (arguments.bind == BindMode::kNone) command.insert(command.end(), {"--bind", "none"});
  command.push_back(arguments.file);
  for (const std::string& each : arguments.overrides) command.insert(command.end(), {"--set", each});
  // Last, so that it wins: the job may be a requeued one.
  command.insert(command.end(), {"--set", "training.resume_from_checkpoint=latest"});
  std::vector<std::string> words;
  for (const std::string& word : command) words.push_back(quoted(word));

  return fmt::format(R"(#!/bin/bash
{}#SBATCH --requeue

# Slurm sends SIGUSR2 to the ranks two minutes before the time limit, and SIGTERM when the job is preempted: they publish
# a checkpoint and leave with exit code 75. The job then goes back into the queue and goes on from that checkpoint.
# output_dir must be on a disk that all nodes see.
trap : TERM USR2  # for the program below; this shell waits for it

{}
code=$?
# Slurm itself requeues a preempted job; asking twice does no harm.
if [ $code = 75 ]; then scontrol requeue "$SLURM_JOB_ID"; fi
exit $code
)",
                     lines, fmt::join(words, " "));
}

ExitCode run_slurm(const Arguments& arguments) {
  const LoadedConfig loaded = load_config(read_config_file(arguments.file), arguments.file, arguments.overrides);
  Arguments absolute = arguments;
  absolute.file = fs::absolute(expand_home(arguments.file)).lexically_normal().string();
  const fs::path script = arguments.out.empty() ? fs::path(absolute.file).replace_extension(".sbatch").filename()
                                                : fs::path(expand_home(arguments.out));
  const std::string text =
      slurm_script(absolute, loaded.config, fs::read_symlink("/proc/self/exe").string(), fs::current_path().string());
  std::error_code ignored;
  if (fs::exists(script, ignored) && read_file(script) != text) {
    throw usage_error(fmt::format("slurm: {} is there already, with other content", script.string()),
                      "remove it, or name another one with --out");
  }
  replace_file(script, text);
  if (arguments.slurm.submit) {
    submit(script);
  } else {
    fmt::print("{} is written; submit it with: sbatch {}\n", script.string(), quoted(script.string()));
    std::fflush(stdout);
  }
  return ExitCode::kDone;
}

}  // namespace dtrain
