#include "trainer/models/gpt2.h"

#include <cmath>
#include <utility>

#include <ATen/ops/arange.h>
#include <ATen/ops/ones.h>
#include <fmt/format.h>

#include "core/error.h"
#include "trainer/kernels/attention.h"
#include "trainer/kernels/dropout.h"
#include "trainer/kernels/recompute.h"
#include "trainer/kernels/shortcuts.h"
#include "trainer/models/layers.h"

namespace dtrain {
namespace {

// Sites of dropout: 0 the embeddings; 1 + 3 i to 3 + 3 i block i (probabilities, attention output, feed-forward
// output).
constexpr std::uint32_t kSitesPerBlock = 3;

// Whether all positions lie in the spans of their examples.
bool reads_spans(const TokenLayout& layout, const std::vector<std::int64_t>& positions) {
  for (std::size_t b = 0; b < positions.size(); ++b) {
    if (!layout.spans[b].holds(positions[b])) return false;
  }
  return true;
}

class Attention : public torch::nn::Module {
 public:
  Attention(const Gpt2Config& config, std::int64_t layer)
      : joined_(register_module("c_attn", std::make_shared<Conv1dLayer>(config.hidden_size, 3 * config.hidden_size))),
        project_(register_module("c_proj", std::make_shared<Conv1dLayer>(config.hidden_size, config.hidden_size))),
        dropout_(config.residual_dropout) {
    options_.num_heads = config.num_heads;
    options_.scale =
        config.scale_attention ? 1.0 / std::sqrt(static_cast<double>(config.hidden_size / config.num_heads)) : 1.0;
    if (config.scale_by_layer) options_.scale /= static_cast<double>(layer + 1);
    options_.causal = true;
    options_.dropout = config.attention_dropout;
  }

  // residual + dropout(attention(x)); with `read`, for the tokens of `read` only, whose rows `residual` then holds.
  at::Tensor forward(const at::Tensor& x, const at::Tensor& residual, const TokenContext& context,
                     const ReadTokens* read, std::uint32_t site) const {
    AttentionOptions options = options_;
    options.site = site;
    at::Tensor seen;
    if (read == nullptr) {
      const std::vector<at::Tensor> parts = split_columns(joined_->forward(x), 3);
      seen = attention(parts[0], parts[1], parts[2], context.layout, context.mask, options, context.keys);
    } else {
      const std::int64_t width = x.size(1);
      const std::vector<at::Tensor> parts = split_columns(joined_->columns(x, width, 2 * width), 2);
      seen = attention(joined_->columns(read->of(x), 0, width), parts[0], parts[1], context.layout, context.mask,
                       options, context.keys, read->context.layout);
    }
    return counter_dropout_add(project_->forward(seen), residual, dropout_,
                               (read == nullptr ? context : read->context).keys, site + 1);
  }

 private:
  std::shared_ptr<Conv1dLayer> joined_;
  std::shared_ptr<Conv1dLayer> project_;
  AttentionOptions options_;
  double dropout_;
};

class FeedForward : public torch::nn::Module {
 public:
  explicit FeedForward(const Gpt2Config& config)
      : expand_(register_module("c_fc", std::make_shared<Conv1dLayer>(config.hidden_size, config.inner_size))),
        project_(register_module("c_proj", std::make_shared<Conv1dLayer>(config.inner_size, config.hidden_size))),
        activation_(config.activation),
        dropout_(config.residual_dropout) {}

  at::Tensor forward(const at::Tensor& x, const at::Tensor& residual, const DropoutKeys& keys,
                     std::uint32_t site) const {
    return counter_dropout_add(project_->forward(expand_->forward(x, activation_)), residual, dropout_, keys, site);
  }

 private:
  std::shared_ptr<Conv1dLayer> expand_;
  std::shared_ptr<Conv1dLayer> project_;
  Activation activation_;
  double dropout_;
};

}  // namespace

class Gpt2Block : public torch::nn::Module {
 public:
  Gpt2Block(const Gpt2Config& config, std::int64_t layer)
      : norm_1_(register_module("ln_1", std::make_shared<LayerNormLayer>(config.hidden_size, config.layer_norm_eps))),
        attention_(register_module("attn", std::make_shared<Attention>(config, layer))),
        norm_2_(register_module("ln_2", std::make_shared<LayerNormLayer>(config.hidden_size, config.layer_norm_eps))),
        feed_forward_(register_module("mlp", std::make_shared<FeedForward>(config))) {}

  // [rows, hidden], or [batch, hidden] with `read`.
  at::Tensor forward(const at::Tensor& hidden, const TokenContext& context, const ReadTokens* read,
                     std::uint32_t site) const {
    const at::Tensor residual = read == nullptr ? hidden : read->of(hidden);
    const at::Tensor attended = attention_->forward(norm_1_->forward(hidden), residual, context, read, site);
    return feed_forward_->forward(norm_2_->forward(attended), attended,
                                  (read == nullptr ? context : read->context).keys, site + 2);
  }

 private:
  std::shared_ptr<LayerNormLayer> norm_1_;
  std::shared_ptr<Attention> attention_;
  std::shared_ptr<LayerNormLayer> norm_2_;
  std::shared_ptr<FeedForward> feed_forward_;
};

Gpt2Backbone::Gpt2Backbone(const Gpt2Config& config) : dropout_(config.embedding_dropout) {
  words_ = register_module("wte", std::make_shared<EmbeddingLayer>(config.vocab_size, config.hidden_size));
  positions_ = register_module("wpe", std::make_shared<EmbeddingLayer>(config.max_positions, config.hidden_size));
  const auto list = register_module("h", std::make_shared<torch::nn::Module>());
  for (std::int64_t i = 0; i < config.num_layers; ++i) {
    blocks_.push_back(list->register_module(std::to_string(i), std::make_shared<Gpt2Block>(config, i)));
  }
  norm_ = register_module("ln_f", std::make_shared<LayerNormLayer>(config.hidden_size, config.layer_norm_eps));
}

Gpt2Backbone::~Gpt2Backbone() = default;

at::Tensor Gpt2Backbone::forward(const at::Tensor& ids, const at::Tensor& types, const TokenContext& context,
                                 const Gpt2Pass& pass) const {
  const TokenLayout& layout = *context.layout;
  std::vector<Lookup> lookups{words_->lookup(token_values(layout, ids)),
                              positions_->lookup(token_positions(layout, ids.device()))};
  if (types.defined()) lookups.push_back(words_->lookup(token_values(layout, types)));
  at::Tensor hidden = embedding_sum(lookups);
  if (pass.add_noise) hidden = pass.add_noise(hidden, context.keys);
  if (pass.trace != nullptr) pass.trace->push_back(hidden);
  hidden = counter_dropout(hidden, dropout_, context.keys, 0);
  std::uint32_t site = 1;
  for (const auto& block : blocks_) {
    const bool last = block == blocks_.back();
    if (pass.recomputes && !last) {
      hidden = recompute(
          [&block = *block, context, site](const std::vector<at::Tensor>& inputs) {
            return block.forward(inputs[0], context, nullptr, site);
          },
          {hidden});
    } else {
      hidden = block->forward(hidden, context, last ? pass.read : nullptr, site);
    }
    if (pass.trace != nullptr) pass.trace->push_back(hidden);
    site += kSitesPerBlock;
  }
  return hidden;
}

const at::Tensor& Gpt2Backbone::word_embeddings() const { return words_->weight(); }

at::Tensor Gpt2Backbone::final_norm(const at::Tensor& hidden) const { return norm_->forward(hidden); }

Gpt2Model::Gpt2Model(const Gpt2Config& config, HeadConfig head) : TransformerModel(std::move(head)), config_(config) {
  transformer_ = register_module("transformer", std::make_shared<Gpt2Backbone>(config));
  switch (task()) {
    case Task::kSequenceClassification:
      score_ = register_module("score", std::make_shared<LinearLayer>(config.hidden_size, num_labels(), false));
      break;
    case Task::kTokenClassification:
      score_ = register_module("score", std::make_shared<LinearLayer>(config.hidden_size, num_labels()));
      break;
    case Task::kCausalLm:
      break;
    default:
      throw usage_error("model.task: a gpt2 model predicts the next token, and reads no text but what it continues",
                        "use causal-lm, sequence-classification or token-classification, or another model");
  }
}

Gpt2Model::~Gpt2Model() = default;

std::string Gpt2Model::architecture() const {
  switch (task()) {
    case Task::kTokenClassification:
      return "GPT2ForTokenClassification";
    case Task::kCausalLm:
      return "GPT2LMHeadModel";
    default:
      return "GPT2ForSequenceClassification";
  }
}

TokenContext Gpt2Model::context_of(const Inputs& inputs, const DropoutKeys& keys, bool packed) const {
  return {make_token_layout(inputs.mask, inputs.ids.size(0), inputs.ids.size(1), inputs.ids.device(), /*causal=*/true,
                            packed),
          inputs.mask, keys};
}

Gpt2Pass Gpt2Model::pass(const at::Tensor& mask) const {
  Gpt2Pass result;
  result.add_noise = [this, mask](const at::Tensor& embedded, const DropoutKeys& draws) {
    return with_noise(embedded, draws, mask);
  };
  result.recomputes = recomputes();
  return result;
}

ModelOutput Gpt2Model::run(const Batch& batch, const Inputs& inputs, const DropoutKeys& keys) {
  if (task() == Task::kSequenceClassification) {
    return sequence_output(score_->forward(transformer_->final_norm(last_tokens(inputs, keys))), batch);
  }
  const TokenContext context = context_of(inputs, keys, packs_tokens());
  const at::Tensor hidden = transformer_->forward(inputs.ids, inputs.types, context, pass(inputs.mask));
  if (task() == Task::kCausalLm) {
    const at::Tensor read = transformer_->final_norm(target_rows(hidden, *context.layout, batch));
    return vocabulary_output(read, {transformer_->word_embeddings(), {}}, batch);
  }
  const auto site = static_cast<std::uint32_t>(1 + kSitesPerBlock * config_.num_layers);
  const at::Tensor dropped =
      counter_dropout(transformer_->final_norm(hidden), config_.classifier_dropout, context.keys, site);
  return token_output(score_->forward(target_rows(dropped, *context.layout, batch)), batch);
}

at::Tensor Gpt2Model::last_tokens(const Inputs& inputs, const DropoutKeys& keys) const {
  const std::int64_t batch = inputs.ids.size(0);
  const std::int64_t length = inputs.ids.size(1);
  const c10::Device device = inputs.ids.device();
  at::Tensor real;
  if (config_.pad_token_id >= 0) {
    real = inputs.ids.ne(config_.pad_token_id);
  } else if (inputs.mask.defined()) {
    real = inputs.mask.ne(0);
  } else if (batch > 1) {
    throw data_error("GPT-2 cannot find the last token of each example: there is neither a pad token nor a mask",
                     "set tokenizer.pad_token, for example to \"eos\"");
  } else {
    real = at::ones({batch, length}, inputs.ids.options().dtype(at::kBool));
  }
  // The right-most real token, 0 when there is none: right for padding on either side.
  const at::Tensor last = at::arange(length, inputs.ids.options()).mul(real).argmax(1);
  if (device.is_cpu()) {
    const auto* position = last.const_data_ptr<std::int64_t>();
    const std::vector<std::int64_t> positions(position, position + batch);
    const TokenContext context = context_of(inputs, keys, packs_tokens());
    if (reads_spans(*context.layout, positions)) {
      const ReadTokens read(context, positions);
      Gpt2Pass reading = pass(inputs.mask);
      if (!uses(Shortcut::kReadTokens)) {
        return read.of(transformer_->forward(inputs.ids, inputs.types, context, reading));
      }
      reading.read = &read;
      return transformer_->forward(inputs.ids, inputs.types, context, reading);
    }
  }
  // A token that the mask hides is read (the pad token is another than the mask's), or this is a GPU, where finding
  // out would wait for the device.
  const at::Tensor hidden =
      transformer_->forward(inputs.ids, inputs.types, context_of(inputs, keys, false), pass(inputs.mask));
  return hidden.index_select(0, at::arange(batch, inputs.ids.options()).mul(length).add(last));
}

std::string Gpt2Model::stored_name(const std::string& parameter) const {
  if (task() == Task::kTokenClassification && parameter.starts_with("score."))
    return "classifier." + parameter.substr(6);
  return parameter;
}

std::string Gpt2Model::head_weight() const { return stored_name("score.weight"); }

bool Gpt2Model::may_be_missing(const std::string& parameter) const { return !parameter.starts_with(base_prefix()); }

bool Gpt2Model::is_tied_copy(const std::string& tensor) const {
  return task() == Task::kCausalLm && tensor == "lm_head.weight";
}

InitialValue Gpt2Model::initial_value(const std::string& parameter) const {
  if (parameter.ends_with(".bias")) return {0, 0};
  if (parameter.ends_with("ln_1.weight") || parameter.ends_with("ln_2.weight") || parameter.ends_with("ln_f.weight")) {
    return {1, 0};
  }
  // Two residual additions per block: the GPT-2 paper scales their projections by 1 / sqrt(2 n_layer).
  const bool residual = parameter.ends_with("c_proj.weight");
  return {0, residual ? config_.initializer_range / std::sqrt(2.0 * static_cast<double>(config_.num_layers))
                      : config_.initializer_range};
}

}  // namespace dtrain
