// MemoryMetrics: how much memory the stages of a run take, under the keys of transformers.TrainerMemoryTracker
// (skip_memory_metrics = false). All figures are bytes: of this process (resident), and allocated on its GPU.
//   <stage>_mem_cpu_alloc_delta   more at the end of the stage than at its beginning
//   <stage>_mem_cpu_peaked_delta  more at the peak within the stage than at its end
// and the same for gpu. Local, one thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <c10/core/Device.h>

#include "core/json.h"

namespace dtrain {

class MemoryMetrics {
 public:
  // Without `wanted` all calls do nothing.
  MemoryMetrics(bool wanted, c10::Device device) : wanted_(wanted), device_(device) {}

  void start();
  // Ends what start() began. "init" is reported together with the stage after it.
  void stop(const std::string& stage);
  // Adds what has been measured and not yet added.
  void add_to(OrderedJson& record);

 private:
  struct Usage {
    std::int64_t cpu = 0;
    std::int64_t gpu = 0;
  };
  struct Stage {
    std::string name;
    Usage begin;
    Usage end;
    Usage peak;
  };
  [[nodiscard]] Usage used() const;

  bool wanted_;
  c10::Device device_;
  Usage begin_;
  std::vector<Stage> finished_;
};

}  // namespace dtrain
