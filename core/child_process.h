// ChildProcess: another program that runs beside this one, started with arguments as they are: no shell sees them. It
// is spawned, not forked: a fork of a process that uses MPI or a GPU is not safe.
#pragma once

#include <filesystem>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <sys/types.h>

namespace dtrain {

// The program of this name in the folders of $PATH, or nothing.
[[nodiscard]] std::optional<std::filesystem::path> find_program(std::string_view name);

struct ChildOptions {
  std::vector<std::string> arguments;                              // the first is the program's path
  std::filesystem::path output{};                                  // what it prints is appended here; "": our outputs
  std::vector<std::pair<std::string, std::string>> environment{};  // besides this process's own
  int niceness = 0;                                                // 19: only when nobody else wants the core
};

class ChildProcess {
 public:
  // Starts it, with an empty standard input, no other open file of this process, and in a process group of its own: a
  // Ctrl-C goes to this process, which decides. Throws Error(kIo).
  explicit ChildProcess(const ChildOptions& options);
  // Stops it when it still runs.
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  // Until it ends: its exit code, or 128 and the number of the signal that ended it. One thread.
  int wait();
  // The same, but for at most `seconds`: nothing when it still runs then.
  std::optional<int> wait_for(double seconds);
  // To the process itself, not to what it started. Does nothing when it has ended. Any thread.
  void send(int signal) noexcept;
  // Any thread. Sends SIGKILL to the process group: an upload leaves nothing half done on the other side.
  void stop() noexcept;

 private:
  std::mutex mutex_;  // guards pid_ against its end between a look and a signal
  pid_t pid_ = -1;    // -1: has ended and is forgotten
  int code_ = 0;
};

}  // namespace dtrain
