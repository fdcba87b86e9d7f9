#include "trainer/kernels/cpu/parallel.h"

#include <algorithm>
#include <atomic>

#include <ATen/Parallel.h>

#ifndef _OPENMP
#error "compile this file with -fopenmp: at::parallel_for would run in one thread"
#endif

namespace dtrain::cpu {

void parallel_for(std::int64_t count, std::int64_t grain, const std::function<void(std::int64_t, std::int64_t)>& body) {
  at::parallel_for(0, count, grain, body);
}

void parallel_tasks(std::int64_t count, const std::function<void(std::int64_t)>& body) {
  std::atomic<std::int64_t> next{0};
  at::parallel_for(0, std::min<std::int64_t>(count, at::get_num_threads()), 1, [&](std::int64_t, std::int64_t) {
    for (std::int64_t task = next++; task < count; task = next++) body(task);
  });
}

}  // namespace dtrain::cpu
