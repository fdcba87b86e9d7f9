#include "trainer/kernels/vocabulary_loss.h"

#include <algorithm>
#include <optional>

#include <ATen/autocast_mode.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/custom_function.h>

#include "core/error.h"

namespace dtrain {
namespace {

constexpr std::int64_t kRowsAtOnce = 128;  // 26 MB of scores with GPT-2's vocabulary

// Products take tensors of one type: autocast's, where it is on, else that of the weights.
at::ScalarType product_type(const at::Tensor& weight) {
  const c10::DeviceType device = weight.device().type();
  return at::autocast::is_autocast_enabled(device) ? at::autocast::get_autocast_dtype(device) : weight.scalar_type();
}

class VocabularyLossFunction : public torch::autograd::Function<VocabularyLossFunction> {
 public:
  // LibTorch wants what may be undefined as std::optional, and no undefined result.
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* ctx, const at::Tensor& hidden,
                                                const at::Tensor& weight, const std::optional<at::Tensor>& some_bias,
                                                const at::Tensor& targets,
                                                const std::optional<at::Tensor>& some_weights, double smoothing,
                                                bool with_gradients) {
    const at::Tensor bias = some_bias.value_or(at::Tensor());
    const at::Tensor weights = some_weights.value_or(at::Tensor());
    const at::ScalarType type = product_type(weight);
    const c10::DeviceType device = weight.device().type();
    const bool was_enabled = at::autocast::is_autocast_enabled(device);
    at::autocast::set_autocast_enabled(device, false);  // the types are chosen here
    const at::Tensor words = weight.to(type);
    const std::int64_t rows = hidden.size(0);
    const at::Tensor each = at::empty({rows}, hidden.options().dtype(at::kFloat));
    const at::Tensor predicted = at::empty({with_gradients ? 0 : rows}, targets.options());
    at::Tensor d_hidden;
    at::Tensor d_weight;
    at::Tensor d_bias;
    if (with_gradients) {
      d_hidden = at::empty_like(hidden);
      if (weight.requires_grad()) d_weight = at::zeros_like(weight);
      if (bias.defined() && bias.requires_grad()) d_bias = at::zeros_like(bias);
    }
    for (std::int64_t first = 0; first < rows; first += kRowsAtOnce) {
      const std::int64_t count = std::min(kRowsAtOnce, rows - first);
      const at::Tensor part = hidden.narrow(0, first, count).to(type);
      at::Tensor scores = at::mm(part, words.t()).to(at::kFloat);
      if (bias.defined()) scores.add_(bias);
      if (!with_gradients) predicted.narrow(0, first, count).copy_(scores.argmax(1));
      at::Tensor log_p = at::log_softmax(scores, 1);
      scores.reset();
      const at::Tensor target = targets.narrow(0, first, count).unsqueeze(1);
      at::Tensor loss = log_p.gather(1, target).squeeze(1).neg();
      if (smoothing > 0) loss = loss.mul(1 - smoothing).sub(log_p.mean(1), smoothing);
      each.narrow(0, first, count).copy_(loss);
      if (!with_gradients) continue;
      at::Tensor d_scores = log_p.exp_();
      d_scores.scatter_add_(1, target, at::empty({count, 1}, d_scores.options()).fill_(smoothing - 1));
      if (smoothing > 0) d_scores.sub_(smoothing / static_cast<double>(d_scores.size(1)));
      if (weights.defined()) d_scores.mul_(weights.narrow(0, first, count).unsqueeze(1));
      if (d_bias.defined()) d_bias.add_(d_scores.sum(0));
      const at::Tensor in_type = d_scores.to(type);
      d_hidden.narrow(0, first, count).copy_(at::mm(in_type, words));
      if (!d_weight.defined()) continue;
      if (type == weight.scalar_type()) {
        d_weight.addmm_(in_type.t(), part);
      } else {
        d_weight.add_(at::mm(in_type.t(), part));
      }
    }
    at::autocast::set_autocast_enabled(device, was_enabled);
    ctx->save_for_backward({d_hidden, d_weight, d_bias});
    const at::Tensor sum = (weights.defined() ? each.mul(weights) : each).sum();
    ctx->mark_non_differentiable({each, predicted});
    return {sum, each, predicted};
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list gradients) {
    torch::autograd::variable_list result(7);
    const auto saved = ctx->get_saved_variables();
    for (std::size_t i = 0; i < saved.size(); ++i) {
      if (saved[i].defined()) result[i] = saved[i].mul(gradients[0].to(saved[i].scalar_type()));
    }
    return result;
  }
};

}  // namespace

VocabularyLoss vocabulary_loss(const at::Tensor& hidden, const DensePart& vocabulary, const at::Tensor& targets,
                               const at::Tensor& weights, double smoothing) {
  DTRAIN_CHECK(hidden.dim() == 2 && targets.dim() == 1 && targets.size(0) == hidden.size(0) &&
                   vocabulary.weight.size(1) == hidden.size(1),
               "hidden states, targets and vocabulary differ in size");
  const bool with_gradients =
      c10::GradMode::is_enabled() && (hidden.requires_grad() || vocabulary.weight.requires_grad());
  const auto defined = [](const at::Tensor& tensor) {
    return tensor.defined() ? std::optional<at::Tensor>(tensor) : std::nullopt;
  };
  const auto out = VocabularyLossFunction::apply(hidden, vocabulary.weight, defined(vocabulary.bias), targets,
                                                 defined(weights), smoothing, with_gradients);
  return {out[0], out[1], with_gradients ? at::Tensor() : out[2]};
}

}  // namespace dtrain
