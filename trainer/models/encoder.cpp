#include "trainer/models/encoder.h"

#include <cmath>
#include <utility>
#include <vector>

#include <ATen/ops/cumsum.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/zeros.h>

#include "trainer/kernels/attention.h"
#include "trainer/kernels/recompute.h"
#include "trainer/kernels/shortcuts.h"
#include "trainer/models/layers.h"

namespace dtrain {
namespace {

// Sites of dropout: 0 the embeddings; 1 + 3 i to 3 + 3 i block i (probabilities, attention output, feed-forward
// output).
constexpr std::uint32_t kSitesPerBlock = 3;

// [batch, length]: RoBERTa counts real tokens from `first` on; padding has the position before.
at::Tensor counted_positions(const at::Tensor& ids, std::int64_t pad, std::int64_t first) {
  const at::Tensor real = ids.ne(pad);
  return at::cumsum(real, 1).mul(real).add(first - 1);
}

class Embeddings : public torch::nn::Module {
 public:
  explicit Embeddings(const EncoderConfig& config) : config_(config) {
    const std::int64_t size = config.hidden_size;
    words_ = register_module("word_embeddings",
                             std::make_shared<EmbeddingLayer>(config.vocab_size, size, config.pad_token_id));
    // RoBERTa's padding has a position of its own, which learns nothing.
    const bool counts = config.first_position > 0;
    positions_ = register_module("position_embeddings",
                                 std::make_shared<EmbeddingLayer>(config.max_positions + config.first_position, size,
                                                                  counts ? config.pad_token_id : -1));
    if (config.type_vocab_size > 0) {
      types_ = register_module("token_type_embeddings", std::make_shared<EmbeddingLayer>(config.type_vocab_size, size));
    }
    norm_ = register_module("LayerNorm", std::make_shared<LayerNormLayer>(size, config.layer_norm_eps));
  }

  // `ids` and `types` are [batch, length]; the result is [rows, hidden].
  at::Tensor forward(const at::Tensor& ids, const at::Tensor& types, const TokenContext& context,
                     const AddNoise& add_noise) const {
    const TokenLayout& layout = *context.layout;
    std::vector<Lookup> lookups = {words_->lookup(token_values(layout, ids))};
    if (types_) {
      // Without token types all are 0: one row for all tokens.
      lookups.push_back(types_->lookup(types.defined() ? token_values(layout, types) : at::zeros({1}, ids.options())));
    }
    lookups.push_back(positions_->lookup(
        config_.first_position > 0
            ? token_values(layout, counted_positions(ids, config_.pad_token_id, config_.first_position))
            : token_positions(layout, ids.device())));
    return counter_dropout(norm_->forward(add_noise(embedding_sum(lookups), context.keys)), config_.hidden_dropout,
                           context.keys, 0);
  }

  [[nodiscard]] const at::Tensor& words() const { return words_->weight(); }

 private:
  EncoderConfig config_;
  std::shared_ptr<EmbeddingLayer> words_;
  std::shared_ptr<EmbeddingLayer> positions_;
  std::shared_ptr<EmbeddingLayer> types_;
  std::shared_ptr<LayerNormLayer> norm_;
};

class SelfAttention : public torch::nn::Module {
 public:
  explicit SelfAttention(const EncoderConfig& config)
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
  Output(std::int64_t in, double dropout, const EncoderConfig& config)
      : dense_(register_module("dense", std::make_shared<LinearLayer>(in, config.hidden_size))),
        norm_(
            register_module("LayerNorm", std::make_shared<LayerNormLayer>(config.hidden_size, config.layer_norm_eps))),
        dropout_(dropout) {}

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
  explicit Attention(const EncoderConfig& config)
      : self_(register_module("self", std::make_shared<SelfAttention>(config))),
        output_(register_module(
            "output", std::make_shared<Output>(config.hidden_size, config.attention_output_dropout, config))) {}

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
  explicit Intermediate(const EncoderConfig& config)
      : dense_(register_module("dense", std::make_shared<LinearLayer>(config.hidden_size, config.intermediate_size))),
        activation_(config.activation) {}

  at::Tensor forward(const at::Tensor& x) const { return dense_->forward(x, activation_); }

 private:
  std::shared_ptr<LinearLayer> dense_;
  Activation activation_;
};

class Block : public torch::nn::Module {
 public:
  explicit Block(const EncoderConfig& config)
      : attention_(register_module("attention", std::make_shared<Attention>(config))),
        intermediate_(register_module("intermediate", std::make_shared<Intermediate>(config))),
        output_(register_module("output",
                                std::make_shared<Output>(config.intermediate_size, config.hidden_dropout, config))) {}

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
  explicit Encoder(const EncoderConfig& config) {
    const auto list = register_module("layer", std::make_shared<torch::nn::Module>());
    for (std::int64_t i = 0; i < config.num_layers; ++i) {
      blocks_.push_back(list->register_module(std::to_string(i), std::make_shared<Block>(config)));
    }
  }

  // [rows, hidden], or [batch, hidden] with `read`: the last block computes nothing else.
  at::Tensor forward(at::Tensor hidden, const TokenContext& context, const ReadTokens* read, bool recomputes) const {
    std::uint32_t site = 1;
    for (const auto& block : blocks_) {
      const ReadTokens* wanted = block == blocks_.back() ? read : nullptr;
      // The last block's activations are needed at once, there is nothing to gain.
      if (recomputes && block != blocks_.back()) {
        hidden = recompute(
            [&block = *block, context, site](const std::vector<at::Tensor>& inputs) {
              return block.forward(inputs[0], context, nullptr, site);
            },
            {hidden});
      } else {
        hidden = block->forward(hidden, context, wanted, site);
      }
      site += kSitesPerBlock;
    }
    return hidden;
  }

 private:
  std::vector<std::shared_ptr<Block>> blocks_;
};

class Pooler : public torch::nn::Module {
 public:
  explicit Pooler(const EncoderConfig& config)
      : dense_(register_module("dense", std::make_shared<LinearLayer>(config.hidden_size, config.hidden_size))) {}

  at::Tensor forward(const at::Tensor& x) const { return at::tanh(dense_->forward(x)); }

 private:
  std::shared_ptr<LinearLayer> dense_;
};

}  // namespace

struct EncoderModule::Parts {
  std::shared_ptr<Embeddings> embeddings;
  std::shared_ptr<Encoder> encoder;
  std::shared_ptr<Pooler> pooler;
};

EncoderModule::EncoderModule(const EncoderConfig& config, bool with_pooler) : parts_(std::make_unique<Parts>()) {
  parts_->embeddings = register_module("embeddings", std::make_shared<Embeddings>(config));
  parts_->encoder = register_module("encoder", std::make_shared<Encoder>(config));
  if (with_pooler) parts_->pooler = register_module("pooler", std::make_shared<Pooler>(config));
  head_site_ = static_cast<std::uint32_t>(1 + kSitesPerBlock * config.num_layers);
}

EncoderModule::~EncoderModule() = default;

at::Tensor EncoderModule::forward(const at::Tensor& ids, const at::Tensor& types, const TokenContext& context,
                                  const EncoderPass& pass) const {
  const at::Tensor embedded = parts_->embeddings->forward(ids, types, context, pass.add_noise);
  if (!pass.first_tokens) return parts_->encoder->forward(embedded, context, nullptr, pass.recomputes);
  const ReadTokens read(context, std::vector<std::int64_t>(static_cast<std::size_t>(context.layout->batch), 0));
  if (!uses(Shortcut::kReadTokens)) {
    return read.of(parts_->encoder->forward(embedded, context, nullptr, pass.recomputes));
  }
  return parts_->encoder->forward(embedded, context, &read, pass.recomputes);
}

at::Tensor EncoderModule::pooled(const at::Tensor& first_tokens) const { return parts_->pooler->forward(first_tokens); }

at::Tensor EncoderModule::word_embeddings() const { return parts_->embeddings->words(); }

}  // namespace dtrain
