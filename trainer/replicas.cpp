#include "trainer/replicas.h"

#include <span>

#include <c10/core/GradMode.h>

#include "core/digest.h"
#include "dist/agreement.h"

namespace dtrain {
namespace {

void broadcast_in_place(const at::Tensor& tensor, const std::string& name, Communicator& communicator) {
  const at::Tensor value = tensor.detach();
  if (value.is_contiguous()) {
    communicator.broadcast(value, 0, name)->wait();
    return;
  }
  const at::Tensor copy = value.contiguous();
  communicator.broadcast(copy, 0, name)->wait();
  value.copy_(copy);
}

}  // namespace

void copy_from_first_rank(Model& model, const std::shared_ptr<Communicator>& communicator, HostComm& host) {
  if (communicator->size() == 1) return;
  const c10::AutoGradMode no_gradient(false);
  for (const auto& entry : model.named_parameters()) broadcast_in_place(entry.value(), entry.key(), *communicator);
  copy_buffers_from_first_rank(model, *communicator);
  check_replicas(model, host, "start weights");
}

void copy_buffers_from_first_rank(Model& model, Communicator& communicator) {
  if (communicator.size() == 1) return;
  const c10::AutoGradMode no_gradient(false);
  for (const auto& entry : model.named_buffers()) broadcast_in_place(entry.value(), entry.key(), communicator);
}

std::string weights_digest(const Model& model) {
  Digest digest;
  const auto add = [&](const std::string& name, const at::Tensor& tensor) {
    const at::Tensor bytes = tensor.detach().to(at::kCPU).contiguous();
    digest.add(name);
    for (const std::int64_t extent : bytes.sizes()) digest.add(std::to_string(extent));
    digest.add(std::span(static_cast<const std::byte*>(bytes.const_data_ptr()), bytes.nbytes()));
  };
  for (const auto& entry : model.named_parameters()) add(entry.key(), entry.value());
  for (const auto& entry : model.named_buffers()) add(entry.key(), entry.value());
  return digest.hex();
}

void check_replicas(const Model& model, HostComm& host, const std::string& when) {
  if (host.size() > 1) agree(host, when, {{"digest", weights_digest(model)}});
}

}  // namespace dtrain
