// Which device this rank computes on.
#pragma once

#include <string>

#include <c10/core/Device.h>

#include "configs/train_config.h"
#include "dist/world.h"

namespace dtrain {

struct ChosenDevice {
  c10::Device device = c10::Device(c10::kCPU);
  std::string name = "CPU";  // for people
};

// GPU local_rank where there are GPUs, else, and with training.use_cpu, the CPU. Local; selects the GPU for this
// thread. Throws Error(kUsage) when the node has more ranks than GPUs, or when the GPU cannot do what bf16 asks. The
// environment variable DTRAIN_ASSUME_GPUS, for tests, is taken for the number of GPUs in that check.
[[nodiscard]] ChosenDevice choose_device(const TrainingConfig& training, const World& world);

}  // namespace dtrain
