#include "trainer/reproducible.h"

#include <bit>

#include <ATen/Parallel.h>
#include <ATen/Version.h>

#include "core/error.h"

namespace dtrain {

void check_reproducible(const TrainingConfig& training, int world_size) {
  if (!training.reproducible) return;
  const std::int64_t accumulation = training.gradient_accumulation_steps;
  const std::int64_t micro_batches = accumulation * world_size;
  if (!std::has_single_bit(static_cast<std::uint64_t>(micro_batches))) {
    throw usage_error(
        fmt::format("training.reproducible: a step has {} micro-batches = {} gradient_accumulation_steps x {} ranks, "
                    "which is no power of two",
                    micro_batches, accumulation, world_size),
        "choose gradient_accumulation_steps and ranks that are 1, 2, 4, 8, ...");
  }
  if (training.auto_find_batch_size) {
    throw usage_error("training.reproducible: auto_find_batch_size chooses a batch size by the memory of the machine",
                      "set auto_find_batch_size = false and per_device_train_batch_size to what fits");
  }
}

void check_reproducible(const TrainingConfig& training, const Model& model) {
  if (!training.reproducible) return;
  for (const auto& buffer : model.named_buffers()) {
    if (!buffer.key().ends_with("running_mean") && !buffer.key().ends_with("running_var")) continue;
    throw usage_error(fmt::format("training.reproducible: the model keeps running statistics ({}), which depend on how "
                                  "examples are divided among ranks",
                                  buffer.key()),
                      "use a model with layer normalisation, or set reproducible = false");
  }
}

std::string arithmetic_of(c10::Device device) {
  if (!device.is_cpu()) return device.is_cuda() ? "cuda" : device.str();
  return fmt::format("cpu {}, {} thread{}", at::get_cpu_capability(), at::get_num_threads(),
                     at::get_num_threads() == 1 ? "" : "s");
}

}  // namespace dtrain
