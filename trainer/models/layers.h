// The layers that BERT and GPT-2 are made of. Parameters have the names and layouts of the files on the Hub, float32,
// and no defined value until the model is drawn or loaded. All run under autocast and without.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include "trainer/kernels/dense.h"
#include "trainer/kernels/dropout.h"
#include "trainer/kernels/embedding.h"
#include "trainer/models/model_config.h"

namespace dtrain {

// What the blocks of one forward pass share. Activations are [layout->rows, hidden].
struct TokenContext {
  TokenContext(TokenLayoutPtr rows, at::Tensor padding, DropoutKeys draws)
      : layout(std::move(rows)), mask(std::move(padding)), keys(std::move(draws)) {
    keys.layout = layout;
  }

  TokenLayoutPtr layout;
  at::Tensor mask;  // [batch, length] or undefined, for devices other than the CPU
  DropoutKeys keys;
};

// The tokens that the head reads, one for each example: the last block computes nothing else for the other tokens than
// keys and values.
struct ReadTokens {
  ReadTokens(const TokenContext& all, const std::vector<std::int64_t>& positions)
      : rows(all.layout->spans.empty() ? at::Tensor() : rows_of(*all.layout, positions)),
        context(one_row_each(*all.layout, positions), {}, all.keys) {}

  // [batch, hidden]
  [[nodiscard]] at::Tensor of(const at::Tensor& hidden) const;

  at::Tensor rows;  // [batch] int64: where they are; undefined where activations are not on the CPU
  TokenContext context;
};

// y = x weight^T + bias; weight [out, in]
class LinearLayer : public torch::nn::Module {
 public:
  LinearLayer(std::int64_t in, std::int64_t out, bool with_bias = true);
  [[nodiscard]] at::Tensor forward(const at::Tensor& x) const;
  [[nodiscard]] at::Tensor forward(const at::Tensor& x, Activation activation) const;
  [[nodiscard]] DensePart part() const { return {weight_, bias_}; }

 private:
  at::Tensor weight_;
  at::Tensor bias_;
};

// GPT-2's "Conv1D": y = x weight + bias; weight [in, out], x [rows, in]
class Conv1dLayer : public torch::nn::Module {
 public:
  Conv1dLayer(std::int64_t in, std::int64_t out);
  [[nodiscard]] at::Tensor forward(const at::Tensor& x) const;
  [[nodiscard]] at::Tensor forward(const at::Tensor& x, Activation activation) const;
  // Only these columns of y.
  [[nodiscard]] at::Tensor columns(const at::Tensor& x, std::int64_t first, std::int64_t count) const;

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
  [[nodiscard]] const at::Tensor& weight() const { return weight_; }
  [[nodiscard]] Lookup lookup(const at::Tensor& ids) const { return {weight_, ids, padding_index_}; }

 private:
  at::Tensor weight_;
  std::int64_t padding_index_;
};

}  // namespace dtrain
