#include "launcher/launch_command.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "configs/load_config.h"
#include "core/child_process.h"
#include "core/clock.h"
#include "core/file.h"
#include "core/log.h"
#include "launcher/config_file.h"
#include "launcher/rank_watch.h"
#include "launcher/restart_policy.h"
#include "trainer/checkpoint/checkpoint_store.h"
#include "trainer/checkpoint/run_json.h"
#include "trainer/checkpoint/run_lock.h"

namespace dtrain {
namespace fs = std::filesystem;
namespace {

constexpr double kPollSeconds = 0.1;
constexpr double kOrphanSeconds = 5;  // ranks whose mpirun was killed leave by themselves within one
constexpr double kLockSeconds = 30;
// mpirun leaves a second after the rank that failed; when the network is cut it waits for its daemon on the other host.
constexpr double kLauncherSeconds = 10;

// The signals that ask the supervisor to stop. The first is passed on as SIGUSR2, on which the ranks publish a
// checkpoint; a second one that is not SIGUSR2 means "now".
std::atomic<int> first_signal{0};
std::atomic<bool> stop_now{false};
static_assert(std::atomic<int>::is_always_lock_free && std::atomic<bool>::is_always_lock_free);

void on_signal(int number) {
  int none = 0;
  if (!first_signal.compare_exchange_strong(none, number) && number != SIGUSR2) stop_now = true;
}

void catch_signals() {
  for (const int number : {SIGINT, SIGTERM, SIGUSR2, SIGHUP}) {
    struct sigaction before = {};
    ::sigaction(number, nullptr, &before);
    if (before.sa_handler == SIG_IGN) continue;  // started by nohup
    struct sigaction action = {};
    action.sa_handler = on_signal;
    action.sa_flags = SA_RESTART;
    sigemptyset(&action.sa_mask);
    ::sigaction(number, &action, nullptr);
  }
}

void pause_for(double seconds) {
  const auto whole = static_cast<std::time_t>(seconds);
  const timespec time = {.tv_sec = whole, .tv_nsec = static_cast<long>((seconds - static_cast<double>(whole)) * 1e9)};
  ::nanosleep(&time, nullptr);
}

// Which file this is: a file that was replaced has another one.
struct FileStamp {
  ino_t inode = 0;
  std::int64_t seconds = 0;
  std::int64_t nanoseconds = 0;
  bool operator==(const FileStamp&) const = default;
};

FileStamp stamp_of(const fs::path& path) {
  struct stat found = {};
  if (::stat(path.c_str(), &found) != 0) return {};
  return {found.st_ino, found.st_mtim.tv_sec, found.st_mtim.tv_nsec};
}

// The ranks of a killed mpirun become children of this process (it is their subreaper). Waits until none is left, so
// that no old rank writes beside the new attempt.
void wait_for_orphans() {
  const Stopwatch watch;
  while (true) {
    const pid_t reaped = ::waitpid(-1, nullptr, WNOHANG);
    if (reaped < 0 && errno == ECHILD) return;
    if (reaped > 0) continue;
    if (watch.seconds() > kOrphanSeconds) {
      for (const pid_t child : children_of(::getpid())) {
        log::warning("process {} of the attempt is still there: killing it", child);
        ::kill(child, SIGKILL);
      }
    }
    pause_for(kPollSeconds);
  }
}

// A rank of another host may hold the folder a little longer than its mpirun lives.
void wait_for_lock(const fs::path& folder) {
  const Stopwatch watch;
  while (watch.seconds() < kLockSeconds && first_signal == 0) {
    try {
      const RunLock lock(folder);
      return;
    } catch (const Error&) {
      pause_for(kPollSeconds);
    }
  }
}

std::vector<std::string> words_of(const std::string& text) {
  std::istringstream stream(text);
  std::vector<std::string> words;
  for (std::string word; stream >> word;) words.push_back(word);
  return words;
}

std::string step_text(std::optional<std::int64_t> step) {
  return step ? fmt::format("checkpoint-{}", *step) : "no checkpoint";
}

class Supervisor {
 public:
  explicit Supervisor(const Arguments& arguments) : arguments_(arguments) {
    const LoadedConfig loaded = load_config(read_config_file(arguments.file), arguments.file, arguments.overrides);
    resumes_ = loaded.config.training.resume_from_checkpoint.has_value();
    folder_ = expand_home(loaded.config.training.output_dir);
    find_launcher();
  }

  int run() {
    ::prctl(PR_SET_CHILD_SUBREAPER, 1);
    catch_signals();
    RestartPolicy policy({.max_restarts = arguments_.max_restarts, .pause = arguments_.backoff}, newest_step());
    for (int number = 1;; ++number) {
      const Stopwatch watch;
      const AttemptEnd end = run_attempt(number);
      Decision decision = policy.after(end);
      if (decision.kind == Decision::Kind::kFinish) {
        if (decision.exit != 0 || number > 1) log_end(number, watch.seconds(), end, decision.what);
        record_end(number, decision);
        return decision.exit;
      }
      log_end(number, watch.seconds(), end,
              fmt::format("{}; attempt {} in {:g} s (restart {} of at most {})", decision.what, number + 1,
                          decision.pause, policy.restarts(), arguments_.max_restarts));
      for (const Stopwatch paused; paused.seconds() < decision.pause && first_signal == 0;) pause_for(kPollSeconds);
      wait_for_lock(folder_);
      if (first_signal != 0) {
        decision.exit = static_cast<int>(ExitCode::kPreempted);
        decision.what = fmt::format("signal {} ({}) before attempt {}, which is not started", first_signal.load(),
                                    ::strsignal(first_signal), number + 1);
        log::warning("launch: {}", decision.what);
        record_end(number, decision);
        return decision.exit;
      }
    }
  }

 private:
  void find_launcher() {
    if (arguments_.launcher == "mpirun" && arguments_.ranks <= 1 && arguments_.launcher_args.empty()) return;
    const std::optional<fs::path> program = find_program(arguments_.launcher);
    if (!program) {
      throw usage_error(fmt::format("launch: there is no program {} on $PATH", arguments_.launcher),
                        arguments_.launcher == "mpirun" ? "install Open MPI, or use --ranks 1"
                                                        : "--launcher srun is for a job of Slurm; see dtrain slurm");
    }
    launcher_ = {program->string()};
    if (arguments_.launcher == "mpirun") {
      launcher_.insert(launcher_.end(), {"-np", std::to_string(std::max(1, arguments_.ranks)), "-x", "DTRAIN_ATTEMPT"});
    } else {
      // A rank that is gone ends the others, as under mpirun.
      launcher_.insert(launcher_.end(), {"--mpi=pmix", "--kill-on-bad-exit=1"});
      // Since Slurm 22.05 srun does not take this one from the job, and would give each rank a single core.
      if (const char* cpus = std::getenv("SLURM_CPUS_PER_TASK")) {
        launcher_.push_back(fmt::format("--cpus-per-task={}", cpus));
      }
      if (arguments_.ranks > 0) launcher_.push_back(fmt::format("--ntasks={}", arguments_.ranks));
    }
    for (std::string& word : words_of(arguments_.launcher_args)) launcher_.push_back(std::move(word));
  }

  // Nothing when there is none. Not verified: a damaged one is passed over by the run that resumes.
  [[nodiscard]] std::optional<std::int64_t> newest_step() const {
    std::error_code ignored;
    if (!fs::is_directory(folder_, ignored)) return std::nullopt;
    const std::vector<Checkpoint> checkpoints = CheckpointStore(folder_).list();
    if (checkpoints.empty()) return std::nullopt;
    return checkpoints.back().step;
  }

  [[nodiscard]] std::vector<std::string> command_of(int number) const {
    std::vector<std::string> words = launcher_;
    words.push_back(fs::read_symlink("/proc/self/exe").string());
    words.insert(words.end(), {"train", arguments_.file});
    for (const std::string& each : arguments_.overrides) words.insert(words.end(), {"--set", each});
    if (arguments_.bind == BindMode::kNone) words.insert(words.end(), {"--bind", "none"});
    // A run that begins from a checkpoint elsewhere does so again as long as it has none of its own.
    if (number > 1 && (newest_step() || !resumes_)) {
      words.insert(words.end(), {"--set", "training.resume_from_checkpoint=latest"});
    }
    return words;
  }

  AttemptEnd run_attempt(int number) {
    const fs::path file = folder_ / "run.json";
    const FileStamp before = stamp_of(file);
    AttemptEnd end;
    RankWatch ranks;
    {
      ChildProcess child(
          {.arguments = command_of(number), .environment = {{"DTRAIN_ATTEMPT", std::to_string(number)}}});
      FileStamp seen = before;
      std::optional<Stopwatch> failed;  // since run.json says so
      while (true) {
        if (const std::optional<int> code = child.wait_for(kPollSeconds)) {
          end.code = *code;
          break;
        }
        pass_signals_on(child, end.was_told_to_stop);
        for (const pid_t mpirun : children_of(::getpid())) ranks.look(mpirun);
        if (const FileStamp now = stamp_of(file); now != seen) {
          seen = now;
          if (has_failed()) failed.emplace();
        }
        if (failed && failed->seconds() > kLauncherSeconds) {
          log::warning("launch: the run failed {:g} s ago and {} does not end: killing it", kLauncherSeconds,
                       arguments_.launcher);
          child.stop();
          failed.emplace();
        }
      }
      end.first_gone = ranks.first_gone();
      end.was_told_to_stop = end.was_told_to_stop || first_signal != 0;
    }
    if (end.code != 0) wait_for_orphans();
    if (stamp_of(file) != before) {
      try {
        end.record = read_run_record(folder_);
      } catch (const Error& error) {
        log::warning("{}", error.what());
      }
      has_written_ = true;
    }
    end.step = newest_step();
    return end;
  }

  [[nodiscard]] bool has_failed() const {
    try {
      const std::optional<RunRecord> record = read_run_record(folder_);
      return record && record->state == "failed";
    } catch (const Error&) {
      return false;
    }
  }

  void pass_signals_on(ChildProcess& child, bool& told) {
    if (first_signal != 0 && !told) {
      told = true;
      log::warning("launch: signal {} ({}): the ranks are told to publish a checkpoint and to stop",
                   first_signal.load(), ::strsignal(first_signal));
      // The one signal that mpirun hands to its ranks and that leaves them their time: on SIGTERM it kills them.
      child.send(SIGUSR2);
    }
    if (stop_now.exchange(false)) {
      log::warning("launch: second signal: stopping now");
      child.send(SIGTERM);
    }
  }

  // A rank that was killed could not write why: run.json says "running" for ever unless its supervisor corrects it.
  void record_end(int number, const Decision& decision) const {
    if (!has_written_) return;
    try {
      const RunLock lock(folder_);
      std::optional<RunRecord> record = read_run_record(folder_);
      if (!record || record->exit) return;
      record->state = decision.exit == static_cast<int>(ExitCode::kPreempted) ? "preempted" : "failed";
      record->exit = decision.exit;
      record->reason = decision.what;
      record->suspects = decision.suspects;
      ::setenv("DTRAIN_ATTEMPT", std::to_string(number).c_str(), 1);
      write_run_record(folder_, *record);
    } catch (const Error& error) {
      log::warning("launch: run.json is not corrected: {}", error.what());
    }
  }

  void log_end(int number, double seconds, const AttemptEnd& end, const std::string& text) const {
    log::warning("launch: attempt {} ended after {:.1f} s with {}: {}", number, seconds, step_text(end.step), text);
  }

  const Arguments& arguments_;
  fs::path folder_;
  bool resumes_ = false;
  bool has_written_ = false;           // some attempt has taken the folder and written run.json
  std::vector<std::string> launcher_;  // empty: the program alone
};

}  // namespace

ExitCode run_launch(const Arguments& arguments, const World& world) {
  if (world.world_size > 1) {
    throw usage_error(
        fmt::format("dtrain launch starts the ranks itself, and was started with {} ranks", world.world_size),
        fmt::format("start it without mpirun or srun: dtrain launch --ranks {} {}", world.world_size, arguments.file));
  }
  return static_cast<ExitCode>(Supervisor(arguments).run());
}

}  // namespace dtrain
