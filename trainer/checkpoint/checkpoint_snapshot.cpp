#include "trainer/checkpoint/checkpoint_snapshot.h"

#include <ATen/ops/empty.h>

#include "core/file.h"

namespace dtrain {
namespace {

void copy_all(NamedTensors& tensors) {
  for (auto& [name, tensor] : tensors) {
    const at::Tensor copy = at::empty(tensor.sizes(), tensor.options().device(at::kCPU));
    copy.copy_(tensor.detach());
    tensor = copy;
  }
}

std::uint64_t bytes_of(const NamedTensors& tensors) {
  std::uint64_t bytes = 0;
  for (const auto& [name, tensor] : tensors) bytes += tensor.nbytes();
  return bytes;
}

}  // namespace

void CheckpointSnapshot::copy_to_host() {
  copy_all(model.tensors);
  copy_all(optimizer);
}

std::uint64_t CheckpointSnapshot::bytes() const {
  std::uint64_t bytes = (std::uint64_t{1} << 20) + bytes_of(model.tensors) + bytes_of(optimizer);
  for (const auto& [name, content] : model.files) bytes += content.size();
  for (const auto& [name, content] : files) bytes += content.size();
  return bytes;
}

void CheckpointSnapshot::write(const std::filesystem::path& folder) const {
  write_model(model, folder);
  for (const auto& [name, content] : files) write_file_synced(folder / name, content);
  if (!optimizer.empty()) write_safetensors(folder / kOptimizerFile, optimizer, {});
  write_trainer_state(folder / "trainer_state.json", state);
}

}  // namespace dtrain
