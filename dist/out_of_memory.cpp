#include "dist/out_of_memory.h"

#include <new>
#include <string_view>
#include <system_error>

#include <c10/util/Exception.h>

namespace dtrain {

bool is_out_of_memory(const std::exception& exception) {
  if (dynamic_cast<const std::bad_alloc*>(&exception) != nullptr) return true;
  if (const auto* refused = dynamic_cast<const std::system_error*>(&exception)) {
    // Of a thread that could not be started: EAGAIN, whatever it was that was missing.
    return refused->code() == std::errc::resource_unavailable_try_again ||
           refused->code() == std::errc::not_enough_memory;
  }
  const auto* torch_error = dynamic_cast<const c10::Error*>(&exception);
  if (torch_error == nullptr) return false;
  const std::string_view text = torch_error->what_without_backtrace();
  return text.find("out of memory") != std::string_view::npos ||
         text.find("can't allocate memory") != std::string_view::npos ||
         text.find("not enough memory") != std::string_view::npos;
}

OutOfMemory::OutOfMemory(const std::string& message)
    : Error(ExitCode::kInternal, message,
            "lower per_device_train_batch_size (raise gradient_accumulation_steps to keep the step the same), or "
            "tokenizer.max_length") {}

}  // namespace dtrain
