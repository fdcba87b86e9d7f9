// Logging through spdlog to standard error. Every line of a rank other than 0 carries its rank; rank 0 speaks for the
// job. log::info("message {}", x) and friends; thread-safe.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include <fmt/format.h>

namespace dtrain::log {

enum class Level { kDebug, kInfo, kWarning, kError };

// Called once after the ranks are known. Ranks other than 0 show `replica` and above.
void set_up(int rank, int world_size, Level first, Level replica);

// A pair of functions that hide and redraw a progress bar around each line; empty functions remove it.
void set_terminal_guard(std::function<void()> hide, std::function<void()> redraw);

void write(Level level, std::string_view message);

template <class... Args>
void debug(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::kDebug, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void info(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::kInfo, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void warning(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::kWarning, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void error(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::kError, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace dtrain::log
