#include "core/log.h"

#include <mutex>

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

namespace dtrain::log {
namespace {

struct Guard {
  std::mutex mutex;
  std::function<void()> hide;
  std::function<void()> redraw;
};

Guard& guard() {
  static Guard instance;
  return instance;
}

spdlog::level::level_enum to_spdlog(Level level) {
  switch (level) {
    case Level::kDebug:
      return spdlog::level::debug;
    case Level::kInfo:
      return spdlog::level::info;
    case Level::kWarning:
      return spdlog::level::warn;
    case Level::kError:
      return spdlog::level::err;
  }
  return spdlog::level::info;
}

spdlog::logger& logger() {
  // spdlog colours only when standard error is a terminal.
  static const std::shared_ptr<spdlog::logger> instance = [] {
    auto created = std::make_shared<spdlog::logger>("dtrain", std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
    created->set_pattern("%^%l%$: %v");
    return created;
  }();
  return *instance;
}

}  // namespace

void set_up(int rank, int world_size, Level first, Level replica) {
  logger().set_level(to_spdlog(rank == 0 ? first : replica));
  logger().set_pattern(world_size > 1 && rank != 0 ? fmt::format("%^%l%$: rank {}: %v", rank) : "%^%l%$: %v");
}

void set_terminal_guard(std::function<void()> hide, std::function<void()> redraw) {
  const std::lock_guard lock(guard().mutex);
  guard().hide = std::move(hide);
  guard().redraw = std::move(redraw);
}

void write(Level level, std::string_view message) {
  const std::lock_guard lock(guard().mutex);
  if (guard().hide) guard().hide();
  logger().log(to_spdlog(level), message);
  if (guard().redraw) guard().redraw();
}

}  // namespace dtrain::log
