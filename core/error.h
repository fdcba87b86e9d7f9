// Error: the one exception type for everything that comes from outside (files, settings, sockets, other ranks).
// It carries the exit code of the process, one line that says what is wrong and where, and a hint that says what to do.
// It is thrown anywhere and caught once, in dist/run_job.cpp. DTRAIN_CHECK is for broken invariants: a defect in
// dtrain.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include <fmt/format.h>

namespace dtrain {

// The exit codes of every dtrain process; all ranks of a job end with the same one.
enum class ExitCode : int {
  kDone = 0,        // the final state is published and verified
  kUsage = 64,      // command line or configuration is wrong
  kData = 65,       // an input is damaged or does not fit (data, tokenizer, weights)
  kDisagree = 66,   // ranks or attempts disagree about something that must be equal
  kInternal = 70,   // a defect in dtrain, or an exception nobody named
  kIo = 74,         // reading or writing failed (disk full, permissions, EIO)
  kPreempted = 75,  // stopped by a signal; a checkpoint is published
  kStalled = 86,    // the watchdog ended a stalled job
};

class Error : public std::runtime_error {
 public:
  Error(ExitCode code, const std::string& message, std::string hint = {})
      : std::runtime_error(message), code_(code), hint_(std::move(hint)) {}

  [[nodiscard]] ExitCode code() const noexcept { return code_; }
  [[nodiscard]] const std::string& hint() const noexcept { return hint_; }

 private:
  ExitCode code_;
  std::string hint_;
};

// usage_error("configs.toml:3: ...", "write ...") and friends: one function per exit code that input can cause.
[[nodiscard]] Error usage_error(const std::string& message, std::string hint = {});
[[nodiscard]] Error data_error(const std::string& message, std::string hint = {});
[[nodiscard]] Error disagree_error(const std::string& message, std::string hint = {});
[[nodiscard]] Error io_error(const std::string& message, std::string hint = {});

// io_error with the text of `errno_value` appended; ENOSPC, EACCES and friends get their own hint.
[[nodiscard]] Error system_error(const std::string& what, int errno_value);

namespace internal {
[[noreturn]] void check_failed(const char* file, int line, const char* expression, const std::string& message);
}  // namespace internal

// The name in `known` nearest to `name` by edit distance, or "" when none is near enough to be a likely typing slip.
template <class Range>
[[nodiscard]] std::string nearest_name(std::string_view name, const Range& known);

[[nodiscard]] std::size_t edit_distance(std::string_view a, std::string_view b);

template <class Range>
std::string nearest_name(std::string_view name, const Range& known) {
  std::string best;
  std::size_t best_distance = name.size() / 3 + 2;
  for (const auto& candidate : known) {
    const std::size_t distance = edit_distance(name, candidate);
    if (distance < best_distance) {
      best_distance = distance;
      best = std::string(candidate);
    }
  }
  return best;
}

}  // namespace dtrain

// DTRAIN_CHECK(condition, "message {}", args...): throws Error(kInternal) with file, line and expression.
#define DTRAIN_CHECK(condition, ...)                                                                \
  do {                                                                                              \
    if (!(condition)) [[unlikely]] {                                                                \
      ::dtrain::internal::check_failed(__FILE__, __LINE__, #condition, ::fmt::format(__VA_ARGS__)); \
    }                                                                                               \
  } while (false)
