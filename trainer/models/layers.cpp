#include "trainer/models/layers.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/tanh.h>

#include "core/error.h"

namespace dtrain {

at::Tensor ReadTokens::of(const at::Tensor& hidden) const {
  if (rows.defined()) return hidden.index_select(0, rows);
  return hidden.view({context.layout->batch, -1, hidden.size(1)}).select(1, 0);
}

LinearLayer::LinearLayer(std::int64_t in, std::int64_t out, bool with_bias)
    : weight_(register_parameter("weight", at::empty({out, in}, at::kFloat))) {
  if (with_bias) bias_ = register_parameter("bias", at::empty({out}, at::kFloat));
}

at::Tensor LinearLayer::forward(const at::Tensor& x) const { return at::linear(x, weight_, bias_); }

Conv1dLayer::Conv1dLayer(std::int64_t in, std::int64_t out)
    : weight_(register_parameter("weight", at::empty({in, out}, at::kFloat))),
      bias_(register_parameter("bias", at::empty({out}, at::kFloat))) {}

at::Tensor Conv1dLayer::forward(const at::Tensor& x) const { return at::addmm(bias_, x, weight_); }

at::Tensor Conv1dLayer::columns(const at::Tensor& x, std::int64_t first, std::int64_t count) const {
  return at::addmm(bias_.narrow(0, first, count), x, weight_.narrow(1, first, count));
}

LayerNormLayer::LayerNormLayer(std::int64_t size, double eps)
    : weight_(register_parameter("weight", at::empty({size}, at::kFloat))),
      bias_(register_parameter("bias", at::empty({size}, at::kFloat))),
      eps_(eps) {}

at::Tensor LayerNormLayer::forward(const at::Tensor& x) const {
  return at::layer_norm(x, weight_.sizes(), weight_, bias_, eps_);
}

EmbeddingLayer::EmbeddingLayer(std::int64_t count, std::int64_t size, std::int64_t padding_index)
    : weight_(register_parameter("weight", at::empty({count, size}, at::kFloat))), padding_index_(padding_index) {}

at::Tensor EmbeddingLayer::forward(const at::Tensor& ids) const { return at::embedding(weight_, ids, padding_index_); }

at::Tensor activate(const at::Tensor& x, Activation activation) {
  switch (activation) {
    case Activation::kGelu:
      return at::gelu(x);
    case Activation::kGeluTanh:
      return at::gelu(x, "tanh");
    case Activation::kRelu:
      return at::relu(x);
    case Activation::kTanh:
      return at::tanh(x);
    case Activation::kSilu:
      return at::silu(x);
  }
  DTRAIN_CHECK(false, "activation {}", static_cast<int>(activation));
  return x;
}

}  // namespace dtrain
