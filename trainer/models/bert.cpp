#include "trainer/models/bert.h"

#include <array>
#include <utility>

#include <ATen/ops/empty.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/tanh.h>
#include <fmt/format.h>

#include "core/error.h"
#include "trainer/kernels/dropout.h"

namespace dtrain {
namespace {

using Names = std::pair<const char*, const char*>;  // here, in files

const char* family_name(EncoderFamily family) {
  switch (family) {
    case EncoderFamily::kBert:
      return "bert";
    case EncoderFamily::kRoberta:
      return "roberta";
    case EncoderFamily::kDistilBert:
      return "distilbert";
  }
  return "";
}

// The parts of a head, named here alike for all families.
std::vector<Names> head_names(EncoderFamily family, Task task) {
  const bool classifies_sequences = task == Task::kSequenceClassification;
  switch (family) {
    case EncoderFamily::kBert:
      return {{"head.classifier.", "classifier."},
              {"head.transform.", "cls.predictions.transform.dense."},
              {"head.norm.", "cls.predictions.transform.LayerNorm."},
              {"head.bias", "cls.predictions.bias"}};
    case EncoderFamily::kRoberta:
      return {{"head.classifier.", classifies_sequences ? "classifier.out_proj." : "classifier."},
              {"head.pre.", "classifier.dense."},
              {"head.transform.", "lm_head.dense."},
              {"head.norm.", "lm_head.layer_norm."},
              {"head.bias", "lm_head.bias"}};
    case EncoderFamily::kDistilBert:
      return {{"head.classifier.", "classifier."},
              {"head.pre.", "pre_classifier."},
              {"head.transform.", "vocab_transform."},
              {"head.norm.", "vocab_layer_norm."},
              {"head.bias", "vocab_projector.bias"}};
  }
  return {};
}

// DistilBERT's names of the stack; the longer of two that match comes first.
constexpr std::array<Names, 9> kDistilBertNames{{
    {"encoder.layer.", "transformer.layer."},
    {".attention.self.query.", ".attention.q_lin."},
    {".attention.self.key.", ".attention.k_lin."},
    {".attention.self.value.", ".attention.v_lin."},
    {".attention.output.dense.", ".attention.out_lin."},
    {".attention.output.LayerNorm.", ".sa_layer_norm."},
    {".intermediate.dense.", ".ffn.lin1."},
    {".output.dense.", ".ffn.lin2."},
    {".output.LayerNorm.", ".output_layer_norm."},
}};

bool replace_first(std::string& text, const Names& names) {
  const std::string from = names.first;
  const std::size_t at = text.find(from);
  if (at == std::string::npos) return false;
  text.replace(at, from.size(), names.second);
  return true;
}

}  // namespace

// Only the parts that family and task need.
class BertModel::Head : public torch::nn::Module {
 public:
  Head(const EncoderConfig& config, const HeadConfig& head) {
    const std::int64_t size = config.hidden_size;
    if (head.task == Task::kMaskedLm) {
      transform = register_module("transform", std::make_shared<LinearLayer>(size, size));
      norm = register_module("norm", std::make_shared<LayerNormLayer>(size, config.layer_norm_eps));
      bias = register_parameter("bias", at::empty({config.vocab_size}, at::kFloat));
      return;
    }
    if (head.task == Task::kSequenceClassification && config.family != EncoderFamily::kBert) {
      pre = register_module("pre", std::make_shared<LinearLayer>(size, size));
    }
    classifier = register_module("classifier", std::make_shared<LinearLayer>(size, head.num_labels));
  }

  std::shared_ptr<LinearLayer> transform;
  std::shared_ptr<LayerNormLayer> norm;
  at::Tensor bias;
  std::shared_ptr<LinearLayer> pre;
  std::shared_ptr<LinearLayer> classifier;
};

BertModel::BertModel(const EncoderConfig& config, HeadConfig head)
    : TransformerModel(std::move(head)), config_(config) {
  if (task() != Task::kSequenceClassification && task() != Task::kTokenClassification && task() != Task::kMaskedLm) {
    throw usage_error(
        fmt::format("model.task: a {} model reads a text as a whole; it does not write one", model_type()),
        "use sequence-classification, token-classification or masked-lm, or another model");
  }
  const bool pools = task() == Task::kSequenceClassification && config.family == EncoderFamily::kBert;
  base_ = register_module("base", std::make_shared<EncoderModule>(config, pools));
  head_module_ = register_module("head", std::make_shared<Head>(config, TransformerModel::head()));
}

BertModel::~BertModel() = default;

std::string BertModel::model_type() const { return family_name(config_.family); }

std::string BertModel::architecture() const {
  const std::string family = config_.family == EncoderFamily::kBert      ? "Bert"
                             : config_.family == EncoderFamily::kRoberta ? "Roberta"
                                                                         : "DistilBert";
  switch (task()) {
    case Task::kTokenClassification:
      return family + "ForTokenClassification";
    case Task::kMaskedLm:
      return family + "ForMaskedLM";
    default:
      return family + "ForSequenceClassification";
  }
}

std::string BertModel::stored_name(const std::string& parameter) const {
  std::string name = parameter;
  if (name.starts_with("base.")) {
    name.replace(0, 5, base_prefix());
    if (config_.family == EncoderFamily::kDistilBert) {
      for (const Names& each : kDistilBertNames) replace_first(name, each);
    }
    return name;
  }
  for (const Names& each : head_names(config_.family, task())) {
    if (replace_first(name, each)) return name;
  }
  return name;
}

std::string BertModel::head_weight() const { return stored_name("head.classifier.weight"); }

ModelOutput BertModel::run(const Batch& batch, const Inputs& inputs, const DropoutKeys& keys) {
  const TokenContext context(make_token_layout(inputs.mask, inputs.ids.size(0), inputs.ids.size(1), inputs.ids.device(),
                                               /*causal=*/false, packs_tokens()),
                             inputs.mask, keys);
  EncoderPass pass;
  pass.add_noise = [this, mask = inputs.mask](const at::Tensor& embedded, const DropoutKeys& draws) {
    return with_noise(embedded, draws, mask);
  };
  pass.recomputes = recomputes();
  pass.first_tokens = task() == Task::kSequenceClassification;
  const at::Tensor hidden = base_->forward(inputs.ids, inputs.types, context, pass);
  switch (task()) {
    case Task::kTokenClassification: {
      const at::Tensor dropped =
          counter_dropout(hidden, config_.token_classifier_dropout, context.keys, base_->head_site());
      return token_output(head_module_->classifier->forward(target_rows(dropped, *context.layout, batch)), batch);
    }
    case Task::kMaskedLm: {
      const at::Tensor rows = target_rows(hidden, *context.layout, batch);
      // BERT's head has the activation of its blocks, RoBERTa's always GELU, DistilBERT's that of its blocks.
      const Activation activation = config_.family == EncoderFamily::kRoberta ? Activation::kGelu : config_.activation;
      const at::Tensor transformed = head_module_->norm->forward(head_module_->transform->forward(rows, activation));
      return vocabulary_output(transformed, {base_->word_embeddings(), head_module_->bias}, batch);
    }
    default:
      return sequence_output(sequence_logits(hidden, keys), batch);
  }
}

at::Tensor BertModel::sequence_logits(const at::Tensor& first_tokens, const DropoutKeys& keys) const {
  const std::uint32_t site = base_->head_site();
  at::Tensor read;
  switch (config_.family) {
    case EncoderFamily::kBert:
      read = base_->pooled(first_tokens);
      break;
    case EncoderFamily::kRoberta:
      read = at::tanh(
          head_module_->pre->forward(counter_dropout(first_tokens, config_.classifier_dropout, keys, site + 1)));
      break;
    case EncoderFamily::kDistilBert:
      read = at::relu(head_module_->pre->forward(first_tokens));
      break;
  }
  return head_module_->classifier->forward(counter_dropout(read, config_.classifier_dropout, keys, site));
}

bool BertModel::may_be_missing(const std::string& parameter) const {
  return !parameter.starts_with(base_prefix()) || parameter.starts_with(base_prefix() + "pooler.");
}

bool BertModel::is_tied_copy(const std::string& tensor) const {
  if (task() != Task::kMaskedLm) return false;
  for (const char* name : {"cls.predictions.decoder.weight", "cls.predictions.decoder.bias", "lm_head.decoder.weight",
                           "lm_head.decoder.bias", "vocab_projector.weight"}) {
    if (tensor == name) return true;
  }
  return false;
}

InitialValue BertModel::initial_value(const std::string& parameter) const {
  if (parameter.ends_with("bias")) return {0, 0};
  if (parameter.ends_with("LayerNorm.weight") || parameter.ends_with("layer_norm.weight")) return {1, 0};
  const bool has_padding_row = parameter.ends_with("word_embeddings.weight") ||
                               (config_.first_position > 0 && parameter.ends_with("position_embeddings.weight"));
  return {0, config_.initializer_range, has_padding_row ? config_.pad_token_id : -1};
}

}  // namespace dtrain
