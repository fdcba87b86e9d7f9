#include "dist/failure.h"

#include <filesystem>
#include <new>
#include <string_view>
#include <system_error>

#include <c10/util/Exception.h>
#include <fmt/format.h>

#include "dist/out_of_memory.h"

namespace dtrain {
namespace {

std::string first_line(std::string_view text) { return std::string(text.substr(0, text.find('\n'))); }

}  // namespace

Error as_error(const std::exception& exception) {
  if (const auto* error = dynamic_cast<const Error*>(&exception)) return *error;
  if (dynamic_cast<const std::bad_alloc*>(&exception) != nullptr) return OutOfMemory("out of memory");
  if (dynamic_cast<const std::filesystem::filesystem_error*>(&exception) != nullptr) {
    return io_error(first_line(exception.what()));
  }
  if (dynamic_cast<const std::system_error*>(&exception) != nullptr && is_out_of_memory(exception)) {
    return OutOfMemory("no memory for another thread, or too many threads (ulimit -u): " +
                       first_line(exception.what()));
  }
  if (const auto* torch_error = dynamic_cast<const c10::Error*>(&exception)) {
    // The rest of what() is a stack trace.
    const std::string message = first_line(torch_error->what_without_backtrace());
    if (is_out_of_memory(exception)) return OutOfMemory(message);
    return {ExitCode::kInternal, fmt::format("LibTorch: {}", message)};
  }
  return {ExitCode::kInternal, first_line(exception.what())};
}

std::string failure_text(const Error& error, const World& world, std::int64_t step) {
  // What all ranks found together names step and ranks itself.
  const bool shared = error.code() == ExitCode::kUsage || error.code() == ExitCode::kDisagree ||
                      std::string_view(error.what()).starts_with("step ");
  std::string where;
  const bool names_rank = std::string_view(error.what()).starts_with("rank ");
  if (world.world_size > 1 && !shared && !names_rank) where = fmt::format("rank {} on {}", world.rank, world.host);
  if (step > 0 && !shared) where += fmt::format("{}step {}", where.empty() ? "" : " at ", step);
  std::string text = fmt::format("error: {}{}{}\n", where, where.empty() ? "" : ": ", error.what());
  if (!error.hint().empty()) text += fmt::format("hint: {}\n", error.hint());
  return text;
}

}  // namespace dtrain
