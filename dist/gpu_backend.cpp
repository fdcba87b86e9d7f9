#include "dist/gpu_backend.h"

#include <filesystem>

#include <dlfcn.h>

#include "core/log.h"

namespace dtrain {
namespace {

constexpr const char* kLibrary = "libdtrain_cuda.so";

// The folder that this very library lies in.
std::filesystem::path own_folder() {
  Dl_info info = {};
  if (dladdr(reinterpret_cast<const void*>(&gpu_present), &info) == 0 || info.dli_fname == nullptr) return {};
  return std::filesystem::absolute(info.dli_fname).parent_path();
}

GpuBackend& load() {
  const std::filesystem::path path = own_folder() / kLibrary;
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) {
    throw usage_error(fmt::format("this build has no GPU backend ({} is missing)", path.string()),
                      "build with -DDTRAIN_CUDA=ON where a CUDA toolkit is, or set training.use_cpu = true");
  }
  // RTLD_GLOBAL: LibTorch's CUDA kernels register themselves with the libtorch_cpu that is already there.
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL);
  if (library == nullptr) {
    throw usage_error(fmt::format("cannot load the GPU backend: {}", dlerror()),
                      "install the CUDA libraries that LibTorch was built with, or set training.use_cpu = true");
  }
  using Entry = GpuBackend* (*)();
  const auto entry = reinterpret_cast<Entry>(dlsym(library, "dtrain_gpu_backend"));
  DTRAIN_CHECK(entry != nullptr, "{} has no entry", path.string());
  return *entry();
}

}  // namespace

bool gpu_present() {
  std::error_code ignored;
  return std::filesystem::exists("/dev/nvidiactl", ignored) || std::filesystem::exists("/dev/nvidia0", ignored) ||
         std::filesystem::exists("/dev/dxg", ignored);
}

GpuBackend& load_gpu_backend() {
  static GpuBackend& backend = load();
  return backend;
}

int gpu_count() {
  if (!gpu_present()) return 0;
  try {
    return load_gpu_backend().device_count();
  } catch (const Error& error) {
    log::warning("the GPUs of this machine are not used: {} ({})", error.what(), error.hint());
    return 0;
  }
}

}  // namespace dtrain
