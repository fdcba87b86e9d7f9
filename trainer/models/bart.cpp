#include "trainer/models/bart.h"

#include <cmath>
#include <optional>
#include <utility>
#include <vector>

#include <ATen/ops/cat.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <fmt/format.h>

#include "core/error.h"
#include "trainer/kernels/attention.h"
#include "trainer/kernels/dropout.h"
#include "trainer/kernels/recompute.h"
#include "trainer/models/layers.h"

namespace dtrain {
namespace {

// Sites of dropout: 0 and 1 the embeddings of encoder and decoder, then the blocks of the encoder (probabilities,
// attention output, inner activations, output) and those of the decoder, which have two more for the second attention.
constexpr std::uint32_t kFirstBlockSite = 2;
constexpr std::uint32_t kEncoderSites = 4;
constexpr std::uint32_t kDecoderSites = 6;
// The table of positions begins with two rows that no token has.
constexpr std::int64_t kPositionOffset = 2;

struct StackSizes {
  std::int64_t layers;
  std::int64_t heads;
  std::int64_t inner_size;
};

class Attention : public torch::nn::Module {
 public:
  Attention(const BartConfig& config, std::int64_t heads)
      : key_(register_module("k_proj", std::make_shared<LinearLayer>(config.hidden_size, config.hidden_size))),
        value_(register_module("v_proj", std::make_shared<LinearLayer>(config.hidden_size, config.hidden_size))),
        query_(register_module("q_proj", std::make_shared<LinearLayer>(config.hidden_size, config.hidden_size))),
        out_(register_module("out_proj", std::make_shared<LinearLayer>(config.hidden_size, config.hidden_size))),
        dropout_(config.dropout) {
    options_.num_heads = heads;
    options_.scale = 1.0 / std::sqrt(static_cast<double>(config.hidden_size / heads));
    options_.dropout = config.attention_dropout;
  }

  // hidden + dropout(attention of the tokens among themselves)
  at::Tensor among(const at::Tensor& hidden, const TokenContext& context, bool causal, std::uint32_t site) const {
    AttentionOptions options = options_;
    options.causal = causal;
    options.site = site;
    const std::vector<at::Tensor> parts =
        split_columns(dense(hidden, {query_->part(), key_->part(), value_->part()}, WeightOrder::kOutIn), 3);
    return finish(attention(parts[0], parts[1], parts[2], context.layout, context.mask, options, context.keys), hidden,
                  context, site);
  }

  // hidden + dropout(attention to the tokens of `read`)
  at::Tensor to(const at::Tensor& hidden, const TokenContext& context, const at::Tensor& read,
                const TokenContext& read_context, std::uint32_t site) const {
    AttentionOptions options = options_;
    options.site = site;
    const std::vector<at::Tensor> parts = keys_and_values(read);
    return finish(attention(query_->forward(hidden), parts[0], parts[1], read_context.layout, read_context.mask,
                            options, context.keys, context.layout),
                  hidden, context, site);
  }

  // For decoding: `x` [rows, hidden].
  [[nodiscard]] std::vector<at::Tensor> keys_and_values(const at::Tensor& x) const {
    return split_columns(dense(x, {key_->part(), value_->part()}, WeightOrder::kOutIn), 2);
  }
  [[nodiscard]] at::Tensor query(const at::Tensor& x) const { return query_->forward(x); }
  [[nodiscard]] at::Tensor output(const at::Tensor& seen) const { return out_->forward(seen); }
  [[nodiscard]] const AttentionOptions& options() const { return options_; }

 private:
  at::Tensor finish(const at::Tensor& seen, const at::Tensor& residual, const TokenContext& context,
                    std::uint32_t site) const {
    return counter_dropout_add(out_->forward(seen), residual, dropout_, context.keys, site + 1);
  }

  std::shared_ptr<LinearLayer> key_;
  std::shared_ptr<LinearLayer> value_;
  std::shared_ptr<LinearLayer> query_;
  std::shared_ptr<LinearLayer> out_;
  AttentionOptions options_;
  double dropout_;
};

// A block of either stack; that of the decoder has a second attention.
class Block : public torch::nn::Module {
 public:
  Block(const BartConfig& config, const StackSizes& sizes, bool reads)
      : self_(register_module("self_attn", std::make_shared<Attention>(config, sizes.heads))),
        self_norm_(register_module("self_attn_layer_norm", norm(config))),
        activation_(config.activation),
        activation_dropout_(config.activation_dropout),
        dropout_(config.dropout) {
    if (reads) {
      cross_ = register_module("encoder_attn", std::make_shared<Attention>(config, sizes.heads));
      cross_norm_ = register_module("encoder_attn_layer_norm", norm(config));
    }
    expand_ = register_module("fc1", std::make_shared<LinearLayer>(config.hidden_size, sizes.inner_size));
    project_ = register_module("fc2", std::make_shared<LinearLayer>(sizes.inner_size, config.hidden_size));
    norm_ = register_module("final_layer_norm", norm(config));
  }

  static std::shared_ptr<LayerNormLayer> norm(const BartConfig& config) {
    return std::make_shared<LayerNormLayer>(config.hidden_size, 1e-5);
  }

  // `hidden` [rows, hidden size]
  at::Tensor encode(const at::Tensor& hidden, const TokenContext& context, std::uint32_t site) const {
    const at::Tensor attended = self_norm_->forward(self_->among(hidden, context, /*causal=*/false, site));
    return feed_forward(attended, context.keys, site + 2);
  }

  // `read` is the result of the encoder.
  at::Tensor decode(const at::Tensor& hidden, const TokenContext& context, const at::Tensor& read,
                    const TokenContext& read_context, std::uint32_t site) const {
    const at::Tensor attended = self_norm_->forward(self_->among(hidden, context, /*causal=*/true, site));
    const at::Tensor informed = cross_norm_->forward(cross_->to(attended, context, read, read_context, site + 2));
    return feed_forward(informed, context.keys, site + 4);
  }

  at::Tensor feed_forward(const at::Tensor& x, const DropoutKeys& keys, std::uint32_t site) const {
    const at::Tensor inner = counter_dropout(expand_->forward(x, activation_), activation_dropout_, keys, site);
    return norm_->forward(counter_dropout_add(project_->forward(inner), x, dropout_, keys, site + 1));
  }

  [[nodiscard]] const Attention& self() const { return *self_; }
  [[nodiscard]] const Attention& cross() const { return *cross_; }
  [[nodiscard]] at::Tensor after_self(const at::Tensor& x) const { return self_norm_->forward(x); }
  [[nodiscard]] at::Tensor after_cross(const at::Tensor& x) const { return cross_norm_->forward(x); }

 private:
  std::shared_ptr<Attention> self_;
  std::shared_ptr<LayerNormLayer> self_norm_;
  std::shared_ptr<Attention> cross_;
  std::shared_ptr<LayerNormLayer> cross_norm_;
  std::shared_ptr<LinearLayer> expand_;
  std::shared_ptr<LinearLayer> project_;
  std::shared_ptr<LayerNormLayer> norm_;
  Activation activation_;
  double activation_dropout_;
  double dropout_;
};

// Encoder or decoder, without the words, which both share.
class Stack : public torch::nn::Module {
 public:
  Stack(const BartConfig& config, const StackSizes& sizes, bool reads, std::shared_ptr<EmbeddingLayer> words)
      : words_(std::move(words)),
        scale_(config.scale_embedding ? std::sqrt(static_cast<double>(config.hidden_size)) : 1.0),
        dropout_(config.dropout) {
    positions_ = register_module("embed_positions", std::make_shared<EmbeddingLayer>(
                                                        config.max_positions + kPositionOffset, config.hidden_size));
    const auto list = register_module("layers", std::make_shared<torch::nn::Module>());
    for (std::int64_t i = 0; i < sizes.layers; ++i) {
      blocks_.push_back(list->register_module(std::to_string(i), std::make_shared<Block>(config, sizes, reads)));
    }
    norm_ = register_module("layernorm_embedding", Block::norm(config));
  }

  // `ids` and `positions` [rows]; [rows, hidden], before dropout.
  [[nodiscard]] at::Tensor embed(const at::Tensor& ids, const at::Tensor& positions) const {
    const Lookup places = positions_->lookup(positions.add(kPositionOffset));
    if (scale_ == 1.0) return norm_->forward(embedding_sum({words_->lookup(ids), places}));
    return norm_->forward(embedding_sum({words_->lookup(ids)}).mul(scale_).add(embedding_sum({places})));
  }

  // `ids` [batch, length]
  [[nodiscard]] at::Tensor embed(const at::Tensor& ids, const TokenContext& context, std::uint32_t site) const {
    const TokenLayout& layout = *context.layout;
    return counter_dropout(embed(token_values(layout, ids), token_positions(layout, ids.device())), dropout_,
                           context.keys, site);
  }

  [[nodiscard]] const std::vector<std::shared_ptr<Block>>& blocks() const { return blocks_; }

 private:
  std::shared_ptr<EmbeddingLayer> words_;  // not a submodule: its owner is above
  std::shared_ptr<EmbeddingLayer> positions_;
  std::vector<std::shared_ptr<Block>> blocks_;
  std::shared_ptr<LayerNormLayer> norm_;
  double scale_;
  double dropout_;
};

}  // namespace

class BartModel::Stacks : public torch::nn::Module {
 public:
  explicit Stacks(const BartConfig& config)
      : words_(register_module(
            "shared", std::make_shared<EmbeddingLayer>(config.vocab_size, config.hidden_size, config.pad_token_id))),
        encoder_(register_module(
            "encoder", std::make_shared<Stack>(
                           config, StackSizes{config.encoder_layers, config.encoder_heads, config.encoder_inner_size},
                           false, words_))),
        decoder_(register_module(
            "decoder", std::make_shared<Stack>(
                           config, StackSizes{config.decoder_layers, config.decoder_heads, config.decoder_inner_size},
                           true, words_))),
        decoder_site_(kFirstBlockSite + kEncoderSites * static_cast<std::uint32_t>(config.encoder_layers)) {}

  // `ids` [batch, length]; [rows, hidden]
  at::Tensor encode(const at::Tensor& ids, const TokenContext& context, bool recomputes) const {
    at::Tensor hidden = encoder_->embed(ids, context, 0);
    std::uint32_t site = kFirstBlockSite;
    for (const auto& block : encoder_->blocks()) {
      if (recomputes) {
        hidden =
            recompute([&block = *block, context,
                       site](const std::vector<at::Tensor>& inputs) { return block.encode(inputs[0], context, site); },
                      {hidden});
      } else {
        hidden = block->encode(hidden, context, site);
      }
      site += kEncoderSites;
    }
    return hidden;
  }

  at::Tensor decode(const at::Tensor& ids, const TokenContext& context, const at::Tensor& read,
                    const TokenContext& read_context, bool recomputes) const {
    at::Tensor hidden = decoder_->embed(ids, context, 1);
    std::uint32_t site = decoder_site_;
    for (const auto& block : decoder_->blocks()) {
      if (recomputes) {
        hidden = recompute(
            [&block = *block, context, read_context, site](const std::vector<at::Tensor>& inputs) {
              return block.decode(inputs[0], context, inputs[1], read_context, site);
            },
            {hidden, read});
      } else {
        hidden = block->decode(hidden, context, read, read_context, site);
      }
      site += kDecoderSites;
    }
    return hidden;
  }

  [[nodiscard]] const at::Tensor& words() const { return words_->weight(); }
  [[nodiscard]] const Stack& decoder() const { return *decoder_; }

 private:
  std::shared_ptr<EmbeddingLayer> words_;
  std::shared_ptr<Stack> encoder_;
  std::shared_ptr<Stack> decoder_;
  std::uint32_t decoder_site_;
};

// Heads are [sequences, heads, tokens, head size].
class BartModel::Decoding final : public StepDecoder {
 public:
  // `read` [batch, length, hidden]; `mask` [batch, length] or undefined.
  Decoding(std::shared_ptr<Stacks> model, const at::Tensor& read, const at::Tensor& mask)
      : model_(std::move(model)), batch_(read.size(0)) {
    if (mask.defined()) visible_ = mask.to(at::kBool).view({batch_, 1, 1, mask.size(1)});
    const at::Tensor rows = read.reshape({-1, read.size(2)});
    for (const auto& block : model_->decoder().blocks()) {
      Kept kept;
      const std::vector<at::Tensor> parts = block->cross().keys_and_values(rows);
      kept.read_keys = heads(parts[0], batch_, block->cross());
      kept.read_values = heads(parts[1], batch_, block->cross());
      kept_.push_back(std::move(kept));
    }
  }

  [[nodiscard]] at::Tensor step(const at::Tensor& newest) override {
    const Stack& decoder = model_->decoder();
    at::Tensor x = decoder.embed(newest, at::full_like(newest, position_++));
    for (std::size_t i = 0; i < kept_.size(); ++i) {
      const Block& block = *decoder.blocks()[i];
      x = block.after_self(x.add(block.self().output(look_back(x, block.self(), kept_[i]))));
      x = block.after_cross(x.add(block.cross().output(look_at_text(x, block.cross(), kept_[i]))));
      x = block.feed_forward(x, {}, 0);
    }
    return at::linear(x, model_->words()).to(at::kFloat);
  }

  void reorder(const at::Tensor& order) override {
    for (Kept& kept : kept_) {
      kept.keys = kept.keys.index_select(0, order);
      kept.values = kept.values.index_select(0, order);
    }
  }

 private:
  struct Kept {
    at::Tensor keys;  // of the tokens written so far
    at::Tensor values;
    at::Tensor read_keys;  // of the text, the same for all beams of an example
    at::Tensor read_values;
  };

  // [sequences, heads, tokens, head size] of [sequences * tokens, hidden]
  static at::Tensor heads(const at::Tensor& x, std::int64_t sequences, const Attention& layer) {
    const std::int64_t count = layer.options().num_heads;
    return x.reshape({sequences, x.size(0) / sequences, count, x.size(1) / count}).transpose(1, 2);
  }
  // The reverse.
  static at::Tensor joined(const at::Tensor& x) {
    return x.transpose(1, 2).reshape({x.size(0) * x.size(2), x.size(1) * x.size(3)});
  }

  static at::Tensor look_back(const at::Tensor& x, const Attention& layer, Kept& kept) {
    const std::vector<at::Tensor> parts = layer.keys_and_values(x);
    const at::Tensor key = heads(parts[0], x.size(0), layer);
    const at::Tensor value = heads(parts[1], x.size(0), layer);
    kept.keys = kept.keys.defined() ? at::cat({kept.keys, key}, 2) : key;
    kept.values = kept.values.defined() ? at::cat({kept.values, value}, 2) : value;
    return joined(at::scaled_dot_product_attention(heads(layer.query(x), x.size(0), layer), kept.keys, kept.values,
                                                   std::nullopt, 0.0, false, layer.options().scale));
  }

  // The beams of an example are the queries of one product.
  [[nodiscard]] at::Tensor look_at_text(const at::Tensor& x, const Attention& layer, const Kept& kept) const {
    return joined(at::scaled_dot_product_attention(
        heads(layer.query(x), batch_, layer), kept.read_keys, kept.read_values,
        visible_.defined() ? std::optional<at::Tensor>(visible_) : std::nullopt, 0.0, false, layer.options().scale));
  }

  std::shared_ptr<Stacks> model_;
  std::int64_t batch_;
  std::int64_t position_ = 0;
  at::Tensor visible_;
  std::vector<Kept> kept_;
};

BartModel::BartModel(const BartConfig& config, HeadConfig head) : TransformerModel(std::move(head)), config_(config) {
  if (task() != Task::kSeq2SeqLm) {
    throw usage_error("model.task: a bart model reads a text and writes another one",
                      "use seq2seq-lm, or another model");
  }
  if (TransformerModel::head().neftune_noise_alpha > 0) {
    throw usage_error("training.neftune_noise_alpha: a bart model takes no noise",
                      "leave it out; the Trainer adds none to such a model either");
  }
  model_ = register_module("model", std::make_shared<Stacks>(config));
}

BartModel::~BartModel() = default;

ModelOutput BartModel::run(const Batch& batch, const Inputs& inputs, const DropoutKeys& keys) {
  const Inputs written = checked_inputs(batch, "decoder_input_ids", "decoder_attention_mask");
  const auto context_of = [&](const Inputs& of, bool causal) {
    return TokenContext(
        make_token_layout(of.mask, of.ids.size(0), of.ids.size(1), of.ids.device(), causal, packs_tokens()), of.mask,
        keys);
  };
  const TokenContext read_context = context_of(inputs, /*causal=*/false);
  const TokenContext context = context_of(written, /*causal=*/true);
  const at::Tensor read = model_->encode(inputs.ids, read_context, recomputes());
  const at::Tensor hidden = model_->decode(written.ids, context, read, read_context, recomputes());
  return vocabulary_output(target_rows(hidden, *context.layout, batch), {model_->words(), {}}, batch);
}

std::unique_ptr<StepDecoder> BartModel::start_decoder(const Batch& batch) {
  const Inputs inputs = checked_inputs(batch, "input_ids", "attention_mask");
  const std::int64_t size = inputs.ids.size(0);
  const std::int64_t length = inputs.ids.size(1);
  const TokenContext context(
      make_token_layout(inputs.mask, size, length, inputs.ids.device(), /*causal=*/false, /*packed=*/false),
      inputs.mask, {});
  const at::Tensor read = model_->encode(inputs.ids, context, /*recomputes=*/false);
  return std::make_unique<Decoding>(model_, read.view({size, length, read.size(1)}), inputs.mask);
}

bool BartModel::is_tied_copy(const std::string& tensor) const {
  for (const char* name : {"lm_head.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight",
                           "model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight"}) {
    if (tensor == name) return true;
  }
  return false;
}

InitialValue BartModel::initial_value(const std::string& parameter) const {
  if (parameter.ends_with("bias")) return {0, 0};
  if (parameter.ends_with("norm.weight") || parameter.ends_with("layernorm_embedding.weight")) return {1, 0};
  return {0, config_.initializer_range, parameter == "model.shared.weight" ? config_.pad_token_id : -1};
}

}  // namespace dtrain
