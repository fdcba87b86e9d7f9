// Running out of memory, of the host or of a GPU, told apart from other failures.
#pragma once

#include <exception>
#include <string>

#include "core/error.h"

namespace dtrain {

// std::bad_alloc, and what LibTorch's allocators throw.
[[nodiscard]] bool is_out_of_memory(const std::exception& exception);

// Error(kInternal), thrown by a step on all ranks alike when the memory of one was short: no weight has changed.
class OutOfMemory : public Error {
 public:
  explicit OutOfMemory(const std::string& message);
};

}  // namespace dtrain
