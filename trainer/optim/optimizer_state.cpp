#include "trainer/optim/optimizer_state.h"

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

double learning_rate_of(const NamedParameter& parameter, std::span<const double> learning_rates) {
  DTRAIN_CHECK(parameter.group < learning_rates.size(), "parameter {} is of group {}, there are {} learning rates",
               parameter.name, parameter.group, learning_rates.size());
  return learning_rates[parameter.group];
}

double weight_decay_of(const NamedParameter& parameter, double weight_decay) {
  return parameter.weight_decay.value_or(parameter.decay ? weight_decay : 0.0);
}

void check_optimizer_state(const NamedTensors& state, const SafetensorsFile& file) {
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
  }
}

void load_optimizer_state(const NamedTensors& state, const SafetensorsFile& file) {
  check_optimizer_state(state, file);
  const c10::NoGradGuard no_gradient;
  for (const auto& [name, target] : state) target.copy_(file.tensor(name));
}

}  // namespace dtrain
