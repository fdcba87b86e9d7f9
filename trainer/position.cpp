#include "trainer/position.h"

#include <atomic>

namespace dtrain {
namespace {
std::atomic<std::int64_t> position{0};
}  // namespace

std::int64_t current_step() noexcept { return position.load(std::memory_order_relaxed); }
void set_current_step(std::int64_t step) noexcept { position.store(step, std::memory_order_relaxed); }

}  // namespace dtrain
