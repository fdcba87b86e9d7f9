#include "trainer/optim/optimizer_state.h"

#include <utility>

#include <c10/core/GradMode.h>

#include "core/error.h"

namespace dtrain {

void check_parameters(const std::vector<NamedParameter>& parameters) {
  for (const NamedParameter& parameter : parameters) {
    const at::Tensor& value = parameter.value;
    DTRAIN_CHECK(value.scalar_type() == at::kFloat && value.layout() == at::kStrided && value.is_contiguous(),
                 "parameter {} is not a contiguous float32 tensor", parameter.name);
    DTRAIN_CHECK(value.device() == parameters.front().value.device(), "parameter {} is on another device than {}",
                 parameter.name, parameters.front().name);
  }
}

bool has_gradient(const at::Tensor& parameter) { return parameter.requires_grad() && parameter.grad().defined(); }

void load_optimizer_state(const NamedTensors& state, const SafetensorsFile& file) {
  std::vector<std::pair<at::Tensor, at::Tensor>> copies;
  for (const auto& [name, target] : state) {
    if (!file.has(name)) {
      throw data_error(
          fmt::format("optimizer.safetensors: no tensor \"{}\"", name),
          "the checkpoint is of another model or optimizer; resume from one that this configuration wrote");
    }
    const at::Tensor source = file.tensor(name);
    if (source.sizes() != target.sizes() || source.scalar_type() != target.scalar_type()) {
      throw data_error(
          fmt::format("optimizer.safetensors: tensor \"{}\" has another shape or type than the model", name),
          "the checkpoint is of another model or optimizer; resume from one that this configuration wrote");
    }
    if (name.ends_with(".step") && source.item<std::int64_t>() < 0) {
      throw data_error(fmt::format("optimizer.safetensors: tensor \"{}\" is negative", name), "use another checkpoint");
    }
    copies.emplace_back(target, source);
  }
  const c10::NoGradGuard no_gradient;
  for (auto& [target, source] : copies) target.copy_(source);
}

}  // namespace dtrain
