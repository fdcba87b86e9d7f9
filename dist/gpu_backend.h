// GpuBackend: everything that needs CUDA or NCCL, in a library of its own (libdtrain_cuda.so) that a CPU machine
// neither builds nor loads. One program serves both: it looks for device files first and loads the library only where
// they are. Thread-safe after load_gpu_backend() has returned. Nothing is collective unless it says so.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "dist/communicator.h"
#include "dist/host_comm.h"
#include "dist/make_communicator.h"
#include "dist/world.h"

namespace dtrain {

struct GpuMemory {
  std::int64_t free_bytes = 0;
  std::int64_t total_bytes = 0;
};

class GpuBackend {
 public:
  virtual ~GpuBackend() = default;

  // Devices this process may use (CUDA_VISIBLE_DEVICES applies); 0 when the driver finds none.
  [[nodiscard]] virtual int device_count() = 0;
  [[nodiscard]] virtual std::string device_name(int device) = 0;
  // Makes `device` the one that tensors on "cuda" live on, in the calling thread.
  virtual void set_device(int device) = 0;
  // Whether bfloat16 products run at full speed (compute capability 8.0 and above).
  [[nodiscard]] virtual bool supports_bf16(int device) = 0;
  [[nodiscard]] virtual GpuMemory memory(int device) = 0;
  // Waits for everything that was started on `device`.
  virtual void synchronize(int device) = 0;
  // Of the loaded libraries, for the start-up log and the agreement between ranks: "CUDA 13.0, NCCL 2.28.9".
  [[nodiscard]] virtual std::string versions() = 0;
  // Collective. NCCL between all ranks on this process's current device; initialisation ends by the deadline.
  [[nodiscard]] virtual std::shared_ptr<Communicator> make_communicator(const World& world, HostComm& host,
                                                                        const CommunicatorOptions& options) = 0;
};

// Whether this machine shows NVIDIA device files. Costs two file look-ups and loads nothing.
[[nodiscard]] bool gpu_present();

// Loads libdtrain_cuda.so from the folder of dtrain's libraries, once. Call it before the first tensor is made:
// LibTorch decides then whether it has CUDA. Throws Error(kUsage) when this build has no such library or it cannot be
// loaded.
[[nodiscard]] GpuBackend& load_gpu_backend();

// Devices that a run may use: 0 without device files, without the library (with a warning), or without a working
// driver.
[[nodiscard]] int gpu_count();

}  // namespace dtrain
