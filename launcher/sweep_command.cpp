#include "launcher/sweep_command.h"

#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "configs/config_text.h"
#include "configs/load_config.h"
#include "configs/sweep_settings.h"
#include "core/child_process.h"
#include "core/clock.h"
#include "core/file.h"
#include "core/log.h"
#include "launcher/config_file.h"
#include "launcher/stop_signals.h"
#include "launcher/sweep_record.h"
#include "trainer/checkpoint/run_json.h"
#include "trainer/checkpoint/run_lock.h"

namespace dtrain {
namespace fs = std::filesystem;
namespace {

class Sweep {
 public:
  explicit Sweep(const Arguments& arguments) : arguments_(arguments), bytes_(read_config_file(arguments.file)) {
    std::vector<std::string> of_sweep;
    for (const std::string& each : arguments.overrides) {
      (is_sweep_override(each) ? of_sweep : overrides_).push_back(each);
    }
    const LoadedConfig loaded = load_config(bytes_, arguments.file, overrides_);
    for (const std::string& warning : loaded.warnings) {
      if (warning.find("[sweep]") == std::string::npos) log::warning("{}", warning);
    }
    base_ = loaded.config;
    settings_ = read_sweep_settings(bytes_, arguments.file, of_sweep, base_);
    folder_ = expand_home(base_.training.output_dir);
  }

  ExitCode run() {
    const RunLock lock(folder_);
    open();
    log::info("sweep: {} trials by {}, {} to {}, in {}", settings_.trials, settings_.method,
              settings_.maximize ? "the highest" : "the lowest", settings_.metric, folder_.string());
    const StopSignals signals;
    for (std::int64_t number = 0; number < settings_.trials; ++number) {
      if (number == std::ssize(record_.trials)) {
        record_.trials.push_back({.number = number, .point = next_point(settings_, record_.observations(), number)});
      }
      Trial& trial = record_.trials[static_cast<std::size_t>(number)];
      if (trial.is_finished()) continue;
      run_trial(trial);
      if (StopSignals::received() != 0) {
        log::warning("stopped by signal {}; the same command goes on with trial {}", StopSignals::received(),
                     trial.is_finished() ? number + 1 : number);
        return ExitCode::kPreempted;
      }
    }
    return report();
  }

 private:
  void open() {
    const fs::path file = folder_ / "sweep.json";
    std::error_code ignored;
    if (!fs::exists(file, ignored)) {
      if (fs::exists(folder_ / "run.json", ignored)) {
        throw usage_error(fmt::format("{} holds a run, not a sweep", folder_.string()),
                          "name another training.output_dir");
      }
      replace_file(folder_ / "sweep.toml", to_toml(base_));
      save();
      return;
    }
    record_ = read_sweep_record(file, settings_);
    check_same_base();
    const auto finished = std::count_if(record_.trials.begin(), record_.trials.end(),
                                        [](const Trial& trial) { return trial.is_finished(); });
    log::info("{} of {} trials are finished already", finished, settings_.trials);
  }

  // What is not searched must be as it was, or the trials could not be compared.
  void check_same_base() const {
    const fs::path file = folder_ / "sweep.toml";
    const TrainConfig saved = read_saved_config(read_file(file), file.string());
    std::vector<std::string> changes;
    for (const Difference& each : diff(saved, base_)) {
      const bool searched = std::any_of(settings_.space.begin(), settings_.space.end(),
                                        [&](const SweepParameter& parameter) { return parameter.name == each.name; });
      if (searched || each.setting_class == SettingClass::kRuntime) continue;
      changes.push_back(fmt::format("{} is {}, was {}", each.name, each.b, each.a));
    }
    if (changes.empty()) return;
    throw disagree_error(
        fmt::format("the sweep in {} was begun otherwise: {}", folder_.string(), fmt::join(changes, "; ")),
        "undo the change, or name another training.output_dir");
  }

  void save() const {
    replace_file(folder_ / "sweep.json", to_json(record_, settings_).dump(2) + "\n");
    replace_file(folder_ / "sweep.csv", to_csv(record_, settings_));
  }

  [[nodiscard]] fs::path path_of(const Trial& trial, const char* suffix) const {
    return folder_ / (trial_name(trial.number) + suffix);
  }

  // The file of the trial: it can be trained again by itself.
  [[nodiscard]] std::string toml_of(const Trial& trial) const {
    std::vector<std::string> overrides = overrides_;
    for (std::size_t p = 0; p < settings_.space.size(); ++p) {
      const SweepParameter& parameter = settings_.space[p];
      overrides.push_back(fmt::format("{}={}", parameter.name, toml_text(value_of(parameter, trial.point[p]))));
    }
    overrides.push_back("training.output_dir=" + toml_text(path_of(trial, "").string()));
    overrides.emplace_back("training.overwrite_output_dir=false");
    overrides.emplace_back("training.resume_from_checkpoint=latest");
    overrides.emplace_back("training.push_to_hub=false");
    return to_toml(load_config(bytes_, arguments_.file, overrides).config);
  }

  void run_trial(Trial& trial) {
    fmt::print("trial {} of {}: {}\n", trial.number, settings_.trials, point_text(settings_, trial.point));
    std::fflush(stdout);
    const Stopwatch watch;
    trial.exit = 0;
    trial.reason.clear();
    save();
    bool started = false;
    try {
      replace_file(path_of(trial, ".toml"), toml_of(trial));
      started = true;
    } catch (const Error& error) {
      // The values of this trial contradict each other.
      trial.exit = static_cast<int>(error.code());
      trial.reason = error.what();
    }
    if (started) trial.exit = wait_for(trial);
    trial.seconds = watch.seconds();
    if (trial.exit == 0) {
      take_result(trial);
    } else if (StopSignals::received() == 0) {
      trial.state = "failed";
      if (trial.reason.empty()) trial.reason = reason_of(trial);
    }
    save();
    if (!trial.is_finished()) return;
    fmt::print("trial {} of {}: {} after {:.1f} s\n", trial.number, settings_.trials,
               trial.value ? fmt::format("{} {:.4f}", settings_.metric, *trial.value)
                           : fmt::format("failed with exit code {}: {}", trial.exit, trial.reason),
               trial.seconds);
    std::fflush(stdout);
  }

  [[nodiscard]] int wait_for(const Trial& trial) const {
    std::vector<std::string> command;
    if (arguments_.ranks > 0) {
      const std::optional<fs::path> mpirun = find_program("mpirun");
      if (!mpirun) throw usage_error("--ranks: there is no program mpirun on $PATH", "install Open MPI");
      command = {mpirun->string(), "-np", std::to_string(arguments_.ranks)};
    }
    command.push_back(fs::read_symlink("/proc/self/exe").string());
    command.insert(command.end(), {"train", path_of(trial, ".toml").string()});
    if (arguments_.bind == BindMode::kNone) command.insert(command.end(), {"--bind", "none"});
    ChildProcess child({.arguments = command, .output = path_of(trial, ".log")});
    // The one of the signals that mpirun, too, hands to its ranks.
    while (true) {
      if (const std::optional<int> code = child.wait_for(0.2)) return *code;
      if (StopSignals::received() == 0) continue;
      child.send(SIGUSR2);
      return child.wait();
    }
  }

  void take_result(Trial& trial) const {
    const Json results = read_json_file(path_of(trial, "") / "eval_results.json");
    const auto found = results.find(settings_.metric);
    if (found == results.end() || !found->is_number() || !std::isfinite(found->get<double>())) {
      trial.state = "failed";
      trial.reason = fmt::format("{} is no finite number", settings_.metric);
      return;
    }
    trial.state = "done";
    trial.value = found->get<double>();
  }

  // What the run itself says, or the last line of its output.
  [[nodiscard]] std::string reason_of(const Trial& trial) const {
    if (const auto record = read_run_record(path_of(trial, "")); record && !record->reason.empty())
      return record->reason;
    const std::string text = read_file(path_of(trial, ".log"));
    std::string reason;
    for (std::size_t start = 0; start < text.size();) {
      const std::size_t end = std::min(text.find('\n', start), text.size());
      const std::string line = text.substr(start, end - start);
      const bool is_error = line.starts_with("error: ");
      if (is_error || (!line.empty() && !reason.starts_with("error: "))) reason = line;
      start = end + 1;
    }
    return reason.starts_with("error: ") ? reason.substr(7) : reason;
  }

  [[nodiscard]] ExitCode report() const {
    const Trial* best = record_.best(settings_.maximize);
    fmt::print("{}", to_table(record_, settings_));
    std::fflush(stdout);
    if (best == nullptr) {
      throw Error(
          static_cast<ExitCode>(record_.trials.front().exit == 0 ? static_cast<int>(ExitCode::kData)
                                                                 : record_.trials.front().exit),
          fmt::format("all {} trials failed; the first: {}", record_.trials.size(), record_.trials.front().reason),
          fmt::format("the output of each trial is in {}/trial-*.log", folder_.string()));
    }
    fmt::print("best: trial {}, {} {:.4f}: {}\nits model is in {}; sweep.json and sweep.csv are in {}\n", best->number,
               settings_.metric, *best->value, point_text(settings_, best->point), path_of(*best, "").string(),
               folder_.string());
    std::fflush(stdout);
    return ExitCode::kDone;
  }

  const Arguments& arguments_;
  std::string bytes_;
  std::vector<std::string> overrides_;
  TrainConfig base_;
  SweepSettings settings_;
  fs::path folder_;
  SweepRecord record_;
};

}  // namespace

ExitCode run_sweep(const Arguments& arguments, const World& world) {
  if (world.world_size > 1) {
    throw usage_error(
        fmt::format("dtrain sweep starts its trials itself, and was started with {} ranks", world.world_size),
        fmt::format("start it without mpirun or srun: dtrain sweep {} --ranks {}", arguments.file, world.world_size));
  }
  return Sweep(arguments).run();
}

}  // namespace dtrain
