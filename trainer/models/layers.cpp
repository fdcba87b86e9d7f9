#include "trainer/models/layers.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/tanh.h>

#include "core/error.h"

namespace dtrain {

namespace {

at::Tensor activated(const at::Tensor& x, const DensePart& part, WeightOrder order, Activation activation) {
  switch (activation) {
    case Activation::kGelu:
      return dense_gelu(x, part, order, /*tanh=*/false);
    case Activation::kGeluTanh:
      return dense_gelu(x, part, order, /*tanh=*/true);
    case Activation::kRelu:
      return at::relu(dense(x, {part}, order));
    case Activation::kTanh:
      return at::tanh(dense(x, {part}, order));
    case Activation::kSilu:
      return at::silu(dense(x, {part}, order));
  }
  DTRAIN_CHECK(false, "activation {}", static_cast<int>(activation));
  return x;
}

}  // namespace

at::Tensor ReadTokens::of(const at::Tensor& hidden) const {
  if (rows.defined()) return hidden.index_select(0, rows);
  return hidden.view({context.layout->batch, -1, hidden.size(1)}).select(1, 0);
}

LinearLayer::LinearLayer(std::int64_t in, std::int64_t out, bool with_bias)
    : weight_(register_parameter("weight", at::empty({out, in}, at::kFloat))) {
  if (with_bias) bias_ = register_parameter("bias", at::empty({out}, at::kFloat));
}

at::Tensor LinearLayer::forward(const at::Tensor& x) const { return dense(x, {part()}, WeightOrder::kOutIn); }

at::Tensor LinearLayer::forward(const at::Tensor& x, Activation activation) const {
  return activated(x, part(), WeightOrder::kOutIn, activation);
}

Conv1dLayer::Conv1dLayer(std::int64_t in, std::int64_t out)
    : weight_(register_parameter("weight", at::empty({in, out}, at::kFloat))),
      bias_(register_parameter("bias", at::empty({out}, at::kFloat))) {}

at::Tensor Conv1dLayer::forward(const at::Tensor& x) const { return dense(x, {{weight_, bias_}}, WeightOrder::kInOut); }

at::Tensor Conv1dLayer::forward(const at::Tensor& x, Activation activation) const {
  return activated(x, {weight_, bias_}, WeightOrder::kInOut, activation);
}

at::Tensor Conv1dLayer::columns(const at::Tensor& x, std::int64_t first, std::int64_t count) const {
  return dense(x, {{weight_.narrow(1, first, count), bias_.narrow(0, first, count)}}, WeightOrder::kInOut);
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

}  // namespace dtrain
