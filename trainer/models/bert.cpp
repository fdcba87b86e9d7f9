#include "trainer/models/bert.h"

#include <cmath>
#include <utility>
#include <vector>

#include <ATen/ops/tanh.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include "trainer/kernels/attention.h"
#include "trainer/kernels/dropout.h"
#include "trainer/models/layers.h"

namespace dtrain {
namespace {

// Sites of dropout: 0 the embeddings; 1 + 3 i to 3 + 3 i block i (probabilities, attention output, feed-forward
// output); 1 + 3 n the head.
constexpr std::uint32_t kSitesPerBlock = 3;

class Embeddings : public torch::nn::Module {
 public:
  explicit Embeddings(const BertConfig& config)
      : words_(register_module("word_embeddings", std::make_shared<EmbeddingLayer>(
                                                      config.vocab_size, config.hidden_size, config.pad_token_id))),
        positions_(register_module("position_embeddings",
                                   std::make_shared<EmbeddingLayer>(config.max_positions, config.hidden_size))),
        types_(register_module("token_type_embeddings",
                               std::make_shared<EmbeddingLayer>(config.type_vocab_size, config.hidden_size))),
        norm_(
            register_module("LayerNorm", std::make_shared<LayerNormLayer>(config.hidden_size, config.layer_norm_eps))),
        dropout_(config.hidden_dropout) {}

  // `ids` and `types` are [batch, length]; the result is [rows, hidden].
  at::Tensor forward(const at::Tensor& ids, const at::Tensor& types, const TokenContext& context) const {
    const TokenLayout& layout = *context.layout;
    // Without token types all are 0: one row for all tokens.
    const at::Tensor of_types = types.defined() ? token_values(layout, types) : at::zeros({1}, ids.options());
    const at::Tensor sum = embedding_sum({words_->lookup(token_values(layout, ids)), types_->lookup(of_types),
                                          positions_->lookup(token_positions(layout, ids.device()))});
    return counter_dropout(norm_->forward(sum), dropout_, context.keys, 0);
  }

 private:
  std::shared_ptr<EmbeddingLayer> words_;
  std::shared_ptr<EmbeddingLayer> positions_;
  std::shared_ptr<EmbeddingLayer> types_;
  std::shared_ptr<LayerNormLayer> norm_;
  double dropout_;
};

class SelfAttention : public torch::nn::Module {
 public:
  explicit SelfAttention(const BertConfig& config)
      : query_(register_module("query", std::make_shared<LinearLayer>(config.hidden_size, config.hidden_size))),
        key_(register_module("key", std::make_shared<LinearLayer>(config.hidden_size, config.hidden_size))),
        value_(register_module("value", std::make_shared<LinearLayer>(config.hidden_size, config.hidden_size))) {
    options_.num_heads = config.num_heads;
    options_.scale = 1.0 / std::sqrt(static_cast<double>(config.hidden_size / config.num_heads));
    options_.dropout = config.attention_dropout;
  }

  // The tokens of `queries` look; all when there is no `read`.
  at::Tensor forward(const at::Tensor& hidden, const at::Tensor& queries, const TokenContext& context,
                     const ReadTokens* read, std::uint32_t site) const {
    AttentionOptions options = options_;
    options.site = site;
    if (read == nullptr) {
      const std::vector<at::Tensor> parts =
          split_columns(dense(hidden, {query_->part(), key_->part(), value_->part()}, WeightOrder::kOutIn), 3);
      return attention(parts[0], parts[1], parts[2], context.layout, context.mask, options, context.keys);
    }
    const std::vector<at::Tensor> parts =
        split_columns(dense(hidden, {key_->part(), value_->part()}, WeightOrder::kOutIn), 2);
    return attention(query_->forward(queries), parts[0], parts[1], context.layout, context.mask, options, context.keys,
                     read->context.layout);
  }

 private:
  std::shared_ptr<LinearLayer> query_;
  std::shared_ptr<LinearLayer> key_;
  std::shared_ptr<LinearLayer> value_;
  AttentionOptions options_;
};

// LayerNorm(residual + dropout(dense(x)))
class Output : public torch::nn::Module {
 public:
  Output(std::int64_t in, const BertConfig& config)
      : dense_(register_module("dense", std::make_shared<LinearLayer>(in, config.hidden_size))),
        norm_(
            register_module("LayerNorm", std::make_shared<LayerNormLayer>(config.hidden_size, config.layer_norm_eps))),
        dropout_(config.hidden_dropout) {}

  at::Tensor forward(const at::Tensor& x, const at::Tensor& residual, const DropoutKeys& keys,
                     std::uint32_t site) const {
    return norm_->forward(counter_dropout_add(dense_->forward(x), residual, dropout_, keys, site));
  }

 private:
  std::shared_ptr<LinearLayer> dense_;
  std::shared_ptr<LayerNormLayer> norm_;
  double dropout_;
};

class Attention : public torch::nn::Module {
 public:
  explicit Attention(const BertConfig& config)
      : self_(register_module("self", std::make_shared<SelfAttention>(config))),
        output_(register_module("output", std::make_shared<Output>(config.hidden_size, config))) {}

  // The result has a row for each of `queries`, which are `hidden` itself when there is no `read`.
  at::Tensor forward(const at::Tensor& hidden, const at::Tensor& queries, const TokenContext& context,
                     const ReadTokens* read, std::uint32_t site) const {
    const at::Tensor seen = self_->forward(hidden, queries, context, read, site);
    return output_->forward(seen, queries, (read == nullptr ? context : read->context).keys, site + 1);
  }

 private:
  std::shared_ptr<SelfAttention> self_;
  std::shared_ptr<Output> output_;
};

class Intermediate : public torch::nn::Module {
 public:
  explicit Intermediate(const BertConfig& config)
      : dense_(register_module("dense", std::make_shared<LinearLayer>(config.hidden_size, config.intermediate_size))),
        activation_(config.activation) {}

  at::Tensor forward(const at::Tensor& x) const { return dense_->forward(x, activation_); }

 private:
  std::shared_ptr<LinearLayer> dense_;
  Activation activation_;
};

class Block : public torch::nn::Module {
 public:
  explicit Block(const BertConfig& config)
      : attention_(register_module("attention", std::make_shared<Attention>(config))),
        intermediate_(register_module("intermediate", std::make_shared<Intermediate>(config))),
        output_(register_module("output", std::make_shared<Output>(config.intermediate_size, config))) {}

  // [rows, hidden], or [batch, hidden] with `read`.
  at::Tensor forward(const at::Tensor& hidden, const TokenContext& context, const ReadTokens* read,
                     std::uint32_t site) const {
    const at::Tensor queries = read == nullptr ? hidden : read->of(hidden);
    const at::Tensor attended = attention_->forward(hidden, queries, context, read, site);
    return output_->forward(intermediate_->forward(attended), attended,
                            (read == nullptr ? context : read->context).keys, site + 2);
  }

 private:
  std::shared_ptr<Attention> attention_;
  std::shared_ptr<Intermediate> intermediate_;
  std::shared_ptr<Output> output_;
};

class Encoder : public torch::nn::Module {
 public:
  explicit Encoder(const BertConfig& config) {
    const auto list = register_module("layer", std::make_shared<torch::nn::Module>());
    for (std::int64_t i = 0; i < config.num_layers; ++i) {
      blocks_.push_back(list->register_module(std::to_string(i), std::make_shared<Block>(config)));
    }
  }

  // [batch, hidden]: nothing but the first token of each example reaches the pooler.
  at::Tensor first_tokens(at::Tensor hidden, const TokenContext& context) const {
    const ReadTokens read(context, std::vector<std::int64_t>(static_cast<std::size_t>(context.layout->batch), 0));
    std::uint32_t site = 1;
    for (const auto& block : blocks_) {
      hidden = block->forward(hidden, context, block == blocks_.back() ? &read : nullptr, site);
      site += kSitesPerBlock;
    }
    return hidden;
  }

 private:
  std::vector<std::shared_ptr<Block>> blocks_;
};

class Pooler : public torch::nn::Module {
 public:
  explicit Pooler(const BertConfig& config)
      : dense_(register_module("dense", std::make_shared<LinearLayer>(config.hidden_size, config.hidden_size))) {}

  at::Tensor forward(const at::Tensor& x) const { return at::tanh(dense_->forward(x)); }

 private:
  std::shared_ptr<LinearLayer> dense_;
};

}  // namespace

class BertModule : public torch::nn::Module {
 public:
  explicit BertModule(const BertConfig& config)
      : embeddings_(register_module("embeddings", std::make_shared<Embeddings>(config))),
        encoder_(register_module("encoder", std::make_shared<Encoder>(config))),
        pooler_(register_module("pooler", std::make_shared<Pooler>(config))) {}

  // [batch, hidden]
  at::Tensor pooled(const at::Tensor& ids, const at::Tensor& types, const TokenContext& context) const {
    return pooler_->forward(encoder_->first_tokens(embeddings_->forward(ids, types, context), context));
  }

 private:
  std::shared_ptr<Embeddings> embeddings_;
  std::shared_ptr<Encoder> encoder_;
  std::shared_ptr<Pooler> pooler_;
};

BertForSequenceClassification::BertForSequenceClassification(const BertConfig& config, ClassifierConfig classifier)
    : ClassifierModel(std::move(classifier)), config_(config) {
  bert_ = register_module("bert", std::make_shared<BertModule>(config));
  classifier_ = register_module("classifier", std::make_shared<LinearLayer>(config.hidden_size, num_labels()));
}

BertForSequenceClassification::~BertForSequenceClassification() = default;

at::Tensor BertForSequenceClassification::logits(const Inputs& inputs, const DropoutKeys& keys) {
  const TokenContext context(make_token_layout(inputs.mask, inputs.ids.size(0), inputs.ids.size(1), inputs.ids.device(),
                                               /*causal=*/false, packs_tokens()),
                             inputs.mask, keys);
  const at::Tensor pooled = bert_->pooled(inputs.ids, inputs.types, context);
  const auto site = static_cast<std::uint32_t>(1 + kSitesPerBlock * config_.num_layers);
  return classifier_->forward(counter_dropout(pooled, config_.classifier_dropout, keys, site));
}

bool BertForSequenceClassification::may_be_missing(const std::string& parameter) const {
  return parameter.starts_with("classifier.") || parameter.starts_with("bert.pooler.");
}

InitialValue BertForSequenceClassification::initial_value(const std::string& parameter) const {
  if (parameter.ends_with(".bias")) return {0, 0};
  if (parameter.ends_with("LayerNorm.weight")) return {1, 0};
  return {0, config_.initializer_range, parameter.ends_with("word_embeddings.weight") ? config_.pad_token_id : -1};
}

}  // namespace dtrain
