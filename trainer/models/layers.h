// The layers that BERT and GPT-2 are made of. Parameters have the names and layouts of the files on the Hub, float32,
// and no defined value until the model is drawn or loaded. All run under autocast and without.
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include "trainer/models/model_config.h"

namespace dtrain {

// y = x weight^T + bias; weight [out, in]
class LinearLayer : public torch::nn::Module {
 public:
  LinearLayer(std::int64_t in, std::int64_t out, bool with_bias = true);
  [[nodiscard]] at::Tensor forward(const at::Tensor& x) const;

 private:
  at::Tensor weight_;
  at::Tensor bias_;
};

// GPT-2's "Conv1D": y = x weight + bias; weight [in, out]
class Conv1dLayer : public torch::nn::Module {
 public:
  Conv1dLayer(std::int64_t in, std::int64_t out);
  [[nodiscard]] at::Tensor forward(const at::Tensor& x) const;

 private:
  at::Tensor weight_;
  at::Tensor bias_;
};

class LayerNormLayer : public torch::nn::Module {
 public:
  LayerNormLayer(std::int64_t size, double eps);
  [[nodiscard]] at::Tensor forward(const at::Tensor& x) const;

 private:
  at::Tensor weight_;
  at::Tensor bias_;
  double eps_;
};

// weight [count, size]; the row `padding_index`, when not negative, never receives a gradient.
class EmbeddingLayer : public torch::nn::Module {
 public:
  EmbeddingLayer(std::int64_t count, std::int64_t size, std::int64_t padding_index = -1);
  [[nodiscard]] at::Tensor forward(const at::Tensor& ids) const;
  // The rows [0, count): [count, size]
  [[nodiscard]] at::Tensor first_rows(std::int64_t count) const;

 private:
  at::Tensor weight_;
  std::int64_t padding_index_;
};

[[nodiscard]] at::Tensor activate(const at::Tensor& x, Activation activation);

}  // namespace dtrain
