#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <utility>

#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/unbind.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>

#include "trainer/optim/flat_kernels.h"
#include "trainer/optim/optimizer.h"
#include "trainer/optim/optimizer_state.h"

namespace dtrain {
namespace {

class AdamW final : public Optimizer {
 public:
  AdamW(std::vector<NamedParameter> parameters, const AdamWOptions& options);

  void step(std::span<const double> learning_rates, double gradient_scale) override;
  [[nodiscard]] NamedTensors state() const override;
  void load_state(const SafetensorsFile& file) override { load_optimizer_state(state(), file); }

 private:
  struct Slot {
    NamedParameter parameter;
    at::Tensor exp_avg;  // views of the flat buffers, shaped as the parameter
    at::Tensor exp_avg_sq;
    at::Tensor updates;  // int64 scalar on the CPU
    [[nodiscard]] std::int64_t& count() const { return *updates.mutable_data_ptr<std::int64_t>(); }
  };

  void step_on_cpu(std::span<const double> learning_rates, double gradient_scale);
  void step_on_device(std::span<const double> learning_rates, double gradient_scale);

  AdamWOptions options_;
  at::Tensor exp_avg_;
  at::Tensor exp_avg_sq_;
  std::vector<Slot> slots_;
};

AdamW::AdamW(std::vector<NamedParameter> parameters, const AdamWOptions& options) : options_(options) {
  check_parameters(parameters);
  std::int64_t total = 0;
  for (const NamedParameter& parameter : parameters) total += parameter.value.numel();
  const auto like = parameters.empty() ? at::TensorOptions().dtype(at::kFloat)
                                       : parameters.front().value.options().requires_grad(false);
  exp_avg_ = at::zeros({total}, like);
  exp_avg_sq_ = at::zeros({total}, like);
  std::int64_t offset = 0;
  for (NamedParameter& parameter : parameters) {
    const std::int64_t count = parameter.value.numel();
    const auto view = [&](const at::Tensor& flat) {
      return flat.narrow(0, offset, count).view(parameter.value.sizes());
    };
    Slot slot{.parameter = {},
              .exp_avg = view(exp_avg_),
              .exp_avg_sq = view(exp_avg_sq_),
              .updates = at::zeros({}, at::TensorOptions().dtype(at::kLong))};
    slot.parameter = std::move(parameter);
    slots_.push_back(std::move(slot));
    offset += count;
  }
}

void AdamW::step(std::span<const double> learning_rates, double gradient_scale) {
  const c10::NoGradGuard no_gradient;
  if (slots_.empty()) return;
  if (exp_avg_.is_cpu()) {
    step_on_cpu(learning_rates, gradient_scale);
  } else {
    step_on_device(learning_rates, gradient_scale);
  }
}

void AdamW::step_on_cpu(std::span<const double> learning_rates, double gradient_scale) {
  std::vector<AdamWTask> tasks;
  std::vector<at::Tensor> gradients;  // keeps copies of odd ones alive
  for (const Slot& slot : slots_) {
    const at::Tensor& value = slot.parameter.value;
    if (!has_gradient(value)) continue;
    gradients.push_back(value.grad().to(at::kFloat).contiguous());
    const auto count = static_cast<double>(++slot.count());
    const double learning_rate = learning_rate_of(slot.parameter, learning_rates);
    const double decay = weight_decay_of(slot.parameter, options_.weight_decay);
    tasks.push_back({.value = value.mutable_data_ptr<float>(),
                     .gradient = gradients.back().const_data_ptr<float>(),
                     .exp_avg = slot.exp_avg.mutable_data_ptr<float>(),
                     .exp_avg_sq = slot.exp_avg_sq.mutable_data_ptr<float>(),
                     .count = value.numel(),
                     .decay_factor = 1 - learning_rate * decay,
                     .step_size = learning_rate / (1 - std::pow(options_.beta1, count)),
                     .correction2_sqrt = std::sqrt(1 - std::pow(options_.beta2, count))});
    value.unsafeGetTensorImpl()->bump_version();  // as every in-place operation does, for autograd to notice
  }
  adamw_update(tasks, {.beta1 = options_.beta1,
                       .beta2 = options_.beta2,
                       .epsilon = options_.epsilon,
                       .gradient_scale = gradient_scale});
}

void AdamW::step_on_device(std::span<const double> learning_rates, double gradient_scale) {
  // The fused kernel divides by its scale, and skips the update where the other tensor is not 0.
  std::optional<at::Tensor> inverse_scale;
  std::optional<at::Tensor> found_infinite;
  if (gradient_scale != 1) {
    inverse_scale = at::full({}, 1 / gradient_scale, exp_avg_.options());
    found_infinite = at::zeros({}, exp_avg_.options());
  }
  // It takes the update counts, already advanced, from the device: all of them in one copy.
  std::vector<float> counts;
  for (const Slot& slot : slots_) {
    if (has_gradient(slot.parameter.value)) ++slot.count();
    counts.push_back(static_cast<float>(slot.count()));
  }
  const std::vector<at::Tensor> device_counts = at::unbind(at::tensor(counts).to(exp_avg_.device()));

  // One call for all parameters of the same rate and decay.
  struct Call {
    std::vector<at::Tensor> values, gradients, exp_avgs, exp_avg_sqs, steps;
  };
  std::map<std::pair<double, double>, Call> calls;
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    const Slot& slot = slots_[i];
    const at::Tensor& value = slot.parameter.value;
    if (!has_gradient(value)) continue;
    Call& call = calls[{learning_rate_of(slot.parameter, learning_rates),
                        weight_decay_of(slot.parameter, options_.weight_decay)}];
    call.values.push_back(value);
    call.gradients.push_back(value.grad());
    call.exp_avgs.push_back(slot.exp_avg);
    call.exp_avg_sqs.push_back(slot.exp_avg_sq);
    call.steps.push_back(device_counts[i]);
  }
  for (auto& [key, call] : calls) {
    const auto [learning_rate, weight_decay] = key;
    at::_fused_adamw_(call.values, call.gradients, call.exp_avgs, call.exp_avg_sqs, /*max_exp_avg_sqs=*/{}, call.steps,
                      learning_rate, options_.beta1, options_.beta2, weight_decay, options_.epsilon,
                      /*amsgrad=*/false, /*maximize=*/false, inverse_scale, found_infinite);
  }
}

NamedTensors AdamW::state() const {
  NamedTensors tensors;
  for (const Slot& slot : slots_) {
    tensors.emplace_back(slot.parameter.name + ".exp_avg", slot.exp_avg);
    tensors.emplace_back(slot.parameter.name + ".exp_avg_sq", slot.exp_avg_sq);
    tensors.emplace_back(slot.parameter.name + ".step", slot.updates);
  }
  return tensors;
}

double norm_of_norms(const std::vector<double>& squares) {
  double sum = 0;
  for (const double each : squares) sum += each;
  return std::sqrt(sum);
}

}  // namespace

std::unique_ptr<Optimizer> make_adamw(std::vector<NamedParameter> parameters, const AdamWOptions& options) {
  return std::make_unique<AdamW>(std::move(parameters), options);
}

double gradient_norm(const std::vector<NamedParameter>& parameters) {
  const c10::NoGradGuard no_gradient;
  std::vector<at::Tensor> gradients;
  for (const NamedParameter& parameter : parameters) {
    if (has_gradient(parameter.value)) gradients.push_back(parameter.value.grad());
  }
  if (gradients.empty()) return 0;
  if (!gradients.front().is_cpu()) {
    return at::linalg_vector_norm(at::stack(at::_foreach_norm(gradients)), 2).item<double>();
  }
  std::vector<FloatSpan> spans;
  for (at::Tensor& gradient : gradients) {
    gradient = gradient.to(at::kFloat).contiguous();
    spans.push_back({gradient.const_data_ptr<float>(), gradient.numel()});
  }
  return norm_of_norms(sums_of_squares(spans));
}

double clip_coefficient(double norm, double max_norm) {
  if (max_norm <= 0) return 1;
  return std::min(1.0, max_norm / (norm + 1e-6));
}

}  // namespace dtrain
