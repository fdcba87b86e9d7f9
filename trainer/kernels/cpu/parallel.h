// Loops over LibTorch's threads. A source file of its own, because at::parallel_for runs in parallel only where it is
// compiled with OpenMP.
#pragma once

#include <cstdint>
#include <functional>

namespace dtrain::cpu {

// Calls body(begin, end) for pieces of [0, count) that have at least `grain` items, on as many threads as LibTorch
// uses. An exception from one piece is rethrown here. Inside another such loop it runs in the calling thread.
void parallel_for(std::int64_t count, std::int64_t grain, const std::function<void(std::int64_t, std::int64_t)>& body);

// Calls body(task) for the tasks [0, count), each thread taking the next one when it is done with its last: for tasks
// of uneven length, and for cores that are not alike at the moment. Otherwise as parallel_for().
void parallel_tasks(std::int64_t count, const std::function<void(std::int64_t)>& body);

}  // namespace dtrain::cpu
