#include "launcher/failure.h"

#include <filesystem>
#include <new>
#include <string_view>

#include <c10/util/Exception.h>
#include <fmt/format.h>

namespace dtrain {
namespace {

const char* const kMemoryHint =
    "lower per_device_train_batch_size (raise gradient_accumulation_steps to keep the step the same), or "
    "tokenizer.max_length";

std::string first_line(std::string_view text) { return std::string(text.substr(0, text.find('\n'))); }

bool about_memory(std::string_view text) {
  return text.find("out of memory") != std::string_view::npos ||
         text.find("can't allocate memory") != std::string_view::npos ||
         text.find("not enough memory") != std::string_view::npos;
}

}  // namespace

Error as_error(const std::exception& exception) {
  if (const auto* error = dynamic_cast<const Error*>(&exception)) return *error;
  if (dynamic_cast<const std::bad_alloc*>(&exception) != nullptr) {
    return {ExitCode::kInternal, "out of memory", kMemoryHint};
  }
  if (dynamic_cast<const std::filesystem::filesystem_error*>(&exception) != nullptr) {
    return io_error(first_line(exception.what()));
  }
  if (const auto* torch_error = dynamic_cast<const c10::Error*>(&exception)) {
    // The rest of what() is a stack trace.
    const std::string message = first_line(torch_error->what_without_backtrace());
    if (about_memory(torch_error->what_without_backtrace())) return {ExitCode::kInternal, message, kMemoryHint};
    return {ExitCode::kInternal, fmt::format("LibTorch: {}", message)};
  }
  return {ExitCode::kInternal, first_line(exception.what())};
}

std::string failure_text(const Error& error, const World& world, std::int64_t step) {
  // What all ranks found together names step and ranks itself.
  const bool shared = error.code() == ExitCode::kUsage || error.code() == ExitCode::kDisagree ||
                      std::string_view(error.what()).starts_with("step ");
  std::string where;
  if (world.world_size > 1 && !shared) where = fmt::format("rank {} on {}", world.rank, world.host);
  if (step > 0 && !shared) where += fmt::format("{}step {}", where.empty() ? "" : " at ", step);
  std::string text = fmt::format("error: {}{}{}\n", where, where.empty() ? "" : ": ", error.what());
  if (!error.hint().empty()) text += fmt::format("hint: {}\n", error.hint());
  return text;
}

}  // namespace dtrain
