#include "launcher/device.h"

#include <cstdlib>

#include <ATen/Context.h>
#include <fmt/format.h>

#include "core/error.h"
#include "dist/gpu_backend.h"

namespace dtrain {

namespace {

ChosenDevice the_cpu(const TrainingConfig& training) {
  if (training.fp16)
    throw usage_error("training.fp16 needs a GPU, and this run uses the CPU", "set training.bf16 = true instead");
  if (training.fp16_full_eval) {
    throw usage_error("training.fp16_full_eval needs a GPU, and this run uses the CPU",
                      "set training.bf16_full_eval = true instead");
  }
  if (training.tf32.value_or(false)) {
    throw usage_error("training.tf32 needs an NVIDIA GPU from Ampere on, and this run uses the CPU", "remove the line");
  }
  return {};
}

}  // namespace

ChosenDevice choose_device(const TrainingConfig& training, const World& world) {
  if (training.use_cpu) return the_cpu(training);
  const int present = gpu_count();
  const char* assumed = std::getenv("DTRAIN_ASSUME_GPUS");
  const int counted = assumed != nullptr ? std::atoi(assumed) : present;
  if (counted > 0 && world.local_size > counted) {
    throw usage_error(fmt::format("{} ranks on {}, which has {} GPU{}: a GPU serves one rank", world.local_size,
                                  world.host, counted, counted == 1 ? "" : "s"),
                      fmt::format("start at most {} rank{} on this node, or set training.use_cpu = true", counted,
                                  counted == 1 ? "" : "s"));
  }
  if (present == 0) return the_cpu(training);
  GpuBackend& backend = load_gpu_backend();
  backend.set_device(world.local_rank);
  const std::string name = backend.device_name(world.local_rank);
  // Bfloat16 and TensorFloat-32 came with the same generation.
  if (!backend.supports_bf16(world.local_rank)) {
    if (training.bf16 || training.bf16_full_eval) {
      throw usage_error(fmt::format("training.{}: {} has no bfloat16", training.bf16 ? "bf16" : "bf16_full_eval", name),
                        fmt::format("set training.{} = true instead", training.bf16 ? "fp16" : "fp16_full_eval"));
    }
    if (training.tf32.value_or(false)) {
      throw usage_error(fmt::format("training.tf32: {} is older than Ampere", name), "remove the line");
    }
  }
  // cuDNN's attention plans each new shape for a tenth of a second; batches sorted by length have many. Measured on an
  // H200 in bfloat16: 230 reviews per second in evaluation with it, thousands without.
  at::globalContext().setSDPUseCuDNN(false);
  return {c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(world.local_rank)), name};
}

}  // namespace dtrain
