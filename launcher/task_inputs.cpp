#include "launcher/task_inputs.h"

#include "core/error.h"
#include "core/file.h"
#include "datasets/collators/padding_collator.h"
#include "datasets/collators/token_collator.h"
#include "launcher/prediction_text.h"

namespace dtrain {
namespace {

LabelKind label_kind_of(ProblemType type) {
  switch (type) {
    case ProblemType::kSingleLabel:
      return LabelKind::kClass;
    case ProblemType::kMultiLabel:
      return LabelKind::kMultiLabel;
    case ProblemType::kRegression:
      return LabelKind::kRegression;
  }
  return LabelKind::kClass;
}

MaskingOptions masking_options(const TrainConfig& config, const Tokenizer& tokenizer) {
  const auto mask_id = tokenizer.mask_id();
  if (!mask_id) {
    throw usage_error(
        fmt::format("the tokenizer in {} has no mask token, which masked-lm needs", *config.tokenizer.path),
        "use the tokenizer of a masked language model (BERT, RoBERTa, DistilBERT)");
  }
  return {.probability = config.data.mlm_probability,
          .mask_replace = config.data.mask_replace_prob,
          .random_replace = config.data.random_replace_prob,
          .mask_id = *mask_id,
          .vocab_size = tokenizer.vocab_size(),
          .special_ids = tokenizer.special_ids(),
          .seed = static_cast<std::uint64_t>(config.training.data_seed.value_or(config.training.seed))};
}

}  // namespace

std::shared_ptr<const Collator> make_collator(const TrainConfig& config, const Inputs& inputs, std::int32_t pad_id) {
  const TokenCollatorOptions common = {.pad_id = pad_id,
                                       .pad_to_multiple_of = config.data.pad_to_multiple_of.value_or(1)};
  switch (inputs.task) {
    case Task::kTokenClassification:
      return make_token_classification_collator(common);
    case Task::kCausalLm:
      return make_causal_collator(common);
    case Task::kMaskedLm:
      return make_masking_collator(common, masking_options(config, *inputs.tokenizer));
    case Task::kSeq2SeqLm:
    case Task::kSequenceClassification:
      break;
  }
  return make_padding_collator({.pad_id = pad_id,
                                .pad_to_multiple_of = common.pad_to_multiple_of,
                                .label_kind = label_kind_of(inputs.problem_type)});
}

TokenDataOptions token_data_options(const TrainConfig& config, const Inputs& inputs) {
  const DataConfig& data = config.data;
  TokenDataOptions options;
  options.reader.path = expand_home(data.train);
  options.reader.format = parse_data_format(data.format);
  options.reader.text_column = data.text;
  options.reader.label_column = data.label;
  options.reader.label_kind = label_kind_of(inputs.problem_type);
  options.reader.class_names = data.labels;
  options.reader.num_labels = inputs.num_labels;
  options.reader.invalid_utf8 = data.invalid_utf8 == "replace" ? InvalidUtf8::kReplace : InvalidUtf8::kError;
  options.samples = data.train_samples;
  options.shuffle_seed = static_cast<std::uint64_t>(data.shuffle_seed);
  options.max_length = inputs.max_length;
  options.cache_dir = expand_home(data.cache_dir);
  switch (inputs.task) {
    case Task::kSequenceClassification:
      break;
    case Task::kTokenClassification:
      options.form = TokenForm::kWords;
      options.reader.record = RecordKind::kWords;
      options.reader.words_column = data.words;
      options.reader.tags_column = data.tags;
      break;
    case Task::kMaskedLm:
    case Task::kCausalLm:
      options.reader.has_labels = false;
      options.reader.num_labels = 1;
      options.skip_blank = data.line_by_line;
      if (!data.line_by_line) {
        options.form = TokenForm::kBlocks;
        options.keep_line_ends = data.keep_linebreaks.value_or(inputs.task == Task::kCausalLm);
      }
      break;
    case Task::kSeq2SeqLm:
      options.form = TokenForm::kPairs;
      options.reader.record = RecordKind::kPair;
      options.reader.source_column = data.source;
      options.reader.target_column = data.target;
      options.max_target_length = config.tokenizer.max_target_length.value_or(inputs.max_length);
      break;
  }
  return options;
}

MetricScope metric_scope(const Inputs& inputs) {
  MetricScope scope;
  scope.num_labels = inputs.num_labels;
  scope.multi_label = inputs.problem_type == ProblemType::kMultiLabel;
  scope.language_model = is_language_model(inputs.task);
  if (inputs.task == Task::kTokenClassification) scope.tag_names = class_names(inputs.model->config_json());
  return scope;
}

}  // namespace dtrain
