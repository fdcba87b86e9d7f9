// The entry of libdtrain_cuda.so; see gpu_backend.h.
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <cuda_runtime_api.h>
#include <nccl.h>

#include "dist/gpu_backend.h"
#include "dist/nccl_communicator.h"

namespace dtrain {
namespace {

void check_cuda(cudaError_t result, const char* call) {
  if (result == cudaSuccess) return;
  static_cast<void>(cudaGetLastError());  // or the next kernel launch reports it again
  throw Error(ExitCode::kInternal, fmt::format("{} failed: {}", call, cudaGetErrorString(result)),
              "check the GPUs and the driver with nvidia-smi");
}

class CudaBackend final : public GpuBackend {
 public:
  int device_count() override { return c10::cuda::device_count(); }

  std::string device_name(int device) override { return properties(device).name; }

  void set_device(int device) override { c10::cuda::set_device(static_cast<c10::DeviceIndex>(device)); }

  bool supports_bf16(int device) override { return properties(device).major >= 8; }

  GpuMemory memory(int device) override {
    const OnDevice on(device);
    std::size_t free = 0;
    std::size_t total = 0;
    check_cuda(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
    return {static_cast<std::int64_t>(free), static_cast<std::int64_t>(total)};
  }

  void synchronize(int device) override {
    const OnDevice on(device);
    c10::cuda::device_synchronize();
  }

  std::string versions() override {
    int cuda = 0;
    int nccl = 0;
    // Without a driver the runtime does not even know its own version.
    if (cudaRuntimeGetVersion(&cuda) != cudaSuccess) cuda = CUDART_VERSION;
    ncclGetVersion(&nccl);
    return fmt::format("CUDA {}.{}, NCCL {}.{}.{}", cuda / 1000, cuda % 1000 / 10, nccl / 10000, nccl % 10000 / 100,
                       nccl % 100);
  }

  std::shared_ptr<Communicator> make_communicator(const World& world, HostComm& host,
                                                  const CommunicatorOptions& options) override {
    int loaded = 0;
    ncclGetVersion(&loaded);
    if (loaded / 10000 != NCCL_MAJOR) {
      throw usage_error(fmt::format("libnccl {} was loaded, dtrain was built with {}", loaded, NCCL_VERSION_CODE),
                        "put the NCCL that dtrain was built with first in LD_LIBRARY_PATH");
    }
    return std::make_shared<NcclCommunicator>(world, host, options);
  }

 private:
  // Makes a device current for a scope.
  class OnDevice {
   public:
    explicit OnDevice(int device) : before_(c10::cuda::ExchangeDevice(static_cast<c10::DeviceIndex>(device))) {}
    ~OnDevice() { c10::cuda::MaybeExchangeDevice(before_); }
    OnDevice(const OnDevice&) = delete;
    OnDevice& operator=(const OnDevice&) = delete;

   private:
    c10::DeviceIndex before_;
  };

  static cudaDeviceProp properties(int device) {
    cudaDeviceProp result = {};
    check_cuda(cudaGetDeviceProperties(&result, device), "cudaGetDeviceProperties");
    return result;
  }
};

}  // namespace
}  // namespace dtrain

extern "C" __attribute__((visibility("default"))) dtrain::GpuBackend* dtrain_gpu_backend() {
  static dtrain::CudaBackend backend;
  return &backend;
}
