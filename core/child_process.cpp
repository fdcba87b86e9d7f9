#include "core/child_process.h"

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <ctime>

#include <fcntl.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/error.h"

namespace dtrain {
namespace fs = std::filesystem;
namespace {

// Settings of posix_spawn, freed at the end of the scope.
struct SpawnSettings {
  SpawnSettings() {
    posix_spawn_file_actions_init(&files);
    posix_spawnattr_init(&attributes);
  }
  ~SpawnSettings() {
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attributes);
  }
  SpawnSettings(const SpawnSettings&) = delete;
  SpawnSettings& operator=(const SpawnSettings&) = delete;

  posix_spawn_file_actions_t files{};
  posix_spawnattr_t attributes{};
};

std::vector<char*> pointers_to(std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  for (std::string& text : texts) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

// This process's environment with `extra` in the place of variables of the same names.
std::vector<std::string> environment_with(const std::vector<std::pair<std::string, std::string>>& extra) {
  std::vector<std::string> result;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    const std::string_view name = text.substr(0, text.find('='));
    bool replaced = false;
    for (const auto& pair : extra) replaced = replaced || pair.first == name;
    if (!replaced) result.emplace_back(text);
  }
  for (const auto& [name, value] : extra) result.push_back(name + "=" + value);
  return result;
}

}  // namespace

std::optional<fs::path> find_program(std::string_view name) {
  const char* path = std::getenv("PATH");
  std::string_view rest = path == nullptr ? "" : path;
  while (!rest.empty()) {
    const std::size_t colon = rest.find(':');
    const std::string_view folder = rest.substr(0, colon);
    rest = colon == std::string_view::npos ? std::string_view{} : rest.substr(colon + 1);
    // An empty entry means the current folder, and nothing there should be run by accident.
    if (folder.empty()) continue;
    const fs::path program = fs::path(folder) / name;
    std::error_code ignored;
    if (fs::is_regular_file(program, ignored) && ::access(program.c_str(), X_OK) == 0) return program;
  }
  return std::nullopt;
}

ChildProcess::ChildProcess(const ChildOptions& options) {
  DTRAIN_CHECK(!options.arguments.empty(), "a child process without a program");
  std::vector<std::string> arguments = options.arguments;
  std::vector<std::string> environment = environment_with(options.environment);
  SpawnSettings settings;
  posix_spawn_file_actions_addopen(&settings.files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  if (!options.output.empty()) {
    posix_spawn_file_actions_addopen(&settings.files, STDOUT_FILENO, options.output.c_str(),
                                     O_WRONLY | O_CREAT | O_APPEND, 0644);
    posix_spawn_file_actions_adddup2(&settings.files, STDOUT_FILENO, STDERR_FILENO);
  }
  posix_spawn_file_actions_addclosefrom_np(&settings.files, STDERR_FILENO + 1);
  // Signals that this process blocks or ignores are the child's to have.
  sigset_t none;
  sigset_t all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&settings.attributes, &none);
  posix_spawnattr_setsigdefault(&settings.attributes, &all);
  posix_spawnattr_setpgroup(&settings.attributes, 0);
  posix_spawnattr_setflags(&settings.attributes,
                           POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  const int error = ::posix_spawn(&pid_, arguments.front().c_str(), &settings.files, &settings.attributes,
                                  pointers_to(arguments).data(), pointers_to(environment).data());
  if (error != 0) {
    pid_ = -1;
    throw system_error(fmt::format("cannot start {}", options.arguments.front()), error);
  }
  // Without the right to it the child is merely not as nice.
  if (options.niceness != 0) (void)::setpriority(PRIO_PROCESS, static_cast<id_t>(pid_), options.niceness);
}

ChildProcess::~ChildProcess() {
  stop();
  wait();
}

int ChildProcess::wait() {
  if (pid_ < 0) return code_;
  siginfo_t info{};
  // Not reaped yet: its number stays its own until stop() cannot use it any more.
  while (::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOWAIT) != 0 && errno == EINTR) {
  }
  const std::lock_guard lock(mutex_);
  int status = 0;
  while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
  code_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return code_;
}

std::optional<int> ChildProcess::wait_for(double seconds) {
  constexpr timespec kPause = {.tv_sec = 0, .tv_nsec = 20'000'000};
  const Stopwatch watch;
  while (pid_ >= 0) {
    siginfo_t info{};
    const int failed = ::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOWAIT | WNOHANG);
    if (failed == 0 && info.si_pid == pid_) break;
    if (watch.seconds() >= seconds) return std::nullopt;
    ::nanosleep(&kPause, nullptr);
  }
  return wait();
}

void ChildProcess::send(int signal) noexcept {
  const std::lock_guard lock(mutex_);
  if (pid_ > 0) ::kill(pid_, signal);
}

void ChildProcess::stop() noexcept {
  const std::lock_guard lock(mutex_);
  if (pid_ > 0) ::kill(-pid_, SIGKILL);
}

}  // namespace dtrain
