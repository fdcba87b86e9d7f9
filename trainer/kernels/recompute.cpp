#include "trainer/kernels/recompute.h"

#include <utility>

#include <ATen/autocast_mode.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

namespace dtrain {
namespace {

// The part, and the types that products had in the first pass.
struct SavedPart : public torch::CustomClassHolder {
  SavedPart(ModelPart function, c10::DeviceType type)
      : part(std::move(function)),
        device(type),
        autocast(at::autocast::is_autocast_enabled(type)),
        autocast_type(at::autocast::get_autocast_dtype(type)) {}

  ModelPart part;
  c10::DeviceType device;
  bool autocast;
  at::ScalarType autocast_type;
};

// Restores what it finds, also when an exception passes.
class AutocastAgain {
 public:
  explicit AutocastAgain(const SavedPart& saved)
      : device_(saved.device),
        enabled_(at::autocast::is_autocast_enabled(device_)),
        type_(at::autocast::get_autocast_dtype(device_)) {
    at::autocast::set_autocast_enabled(device_, saved.autocast);
    at::autocast::set_autocast_dtype(device_, saved.autocast_type);
    at::autocast::increment_nesting();
  }
  ~AutocastAgain() {
    if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
    at::autocast::set_autocast_enabled(device_, enabled_);
    at::autocast::set_autocast_dtype(device_, type_);
  }
  AutocastAgain(const AutocastAgain&) = delete;
  AutocastAgain& operator=(const AutocastAgain&) = delete;

 private:
  c10::DeviceType device_;
  bool enabled_;
  at::ScalarType type_;
};

class Recompute : public torch::autograd::Function<Recompute> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, at::TensorList inputs,
                            const c10::intrusive_ptr<SavedPart>& saved) {
    ctx->save_for_backward(inputs.vec());
    ctx->saved_data["part"] = at::IValue::make_capsule(saved);
    return saved->part(inputs.vec());
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list gradients) {
    const auto saved = c10::static_intrusive_pointer_cast<SavedPart>(ctx->saved_data["part"].toCapsule());
    const c10::AutoGradMode with_gradient(true);
    std::vector<at::Tensor> inputs;
    for (const at::Tensor& input : ctx->get_saved_variables()) {
      inputs.push_back(input.detach().requires_grad_(input.requires_grad()));
    }
    at::Tensor y;
    {
      const AutocastAgain autocast(*saved);
      y = saved->part(inputs);
    }
    torch::autograd::backward({y}, {gradients[0]});
    torch::autograd::variable_list result;
    for (const at::Tensor& input : inputs) result.push_back(input.grad());
    result.emplace_back();  // of the part
    return result;
  }
};

}  // namespace

at::Tensor recompute(ModelPart part, std::vector<at::Tensor> inputs) {
  if (!c10::GradMode::is_enabled()) return part(inputs);
  // Without it nothing would come back to a part whose input needs no gradient (frozen embeddings).
  if (!inputs.front().requires_grad()) inputs.front() = inputs.front().detach().requires_grad_(true);
  const c10::DeviceType device = inputs.front().device().type();
  return Recompute::apply(at::TensorList(inputs), c10::make_intrusive<SavedPart>(std::move(part), device));
}

}  // namespace dtrain
