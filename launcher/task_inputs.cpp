#include "launcher/task_inputs.h"

#include "configs/collator_names.h"
#include "core/error.h"
#include "core/file.h"
#include "core/hub_folder.h"
#include "datasets/collators/padding_collator.h"
#include "datasets/collators/token_collator.h"
#include "launcher/prediction_text.h"

namespace dtrain {
namespace fs = std::filesystem;
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

// Checked when the model was loaded.
std::int32_t decoder_start_id(const Model& model) {
  constexpr std::int32_t kDefault = 2;  // of BartConfig
  return model.config_json().value("decoder_start_token_id", kDefault);
}

}  // namespace

std::shared_ptr<const Collator> make_collator(const TrainConfig& config, const Inputs& inputs, std::int32_t pad_id) {
  if (const Registry::MakeCollator* make = inputs.registry.find_collator(config.data.collator)) {
    return (*make)({.config = config, .pad_id = pad_id});
  }
  if (config.model.plugin && !is_collator_name(config.data.collator)) {
    throw usage_error(fmt::format("data.collator: neither dtrain nor {} has a collator \"{}\"", *config.model.plugin,
                                  config.data.collator),
                      fmt::format("the plugin has: {}", inputs.registry.text()));
  }
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
      return make_seq2seq_collator({.common = common, .decoder_start_id = decoder_start_id(*inputs.model)});
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
      options.reader.num_labels = 1;
      options.max_target_length = config.tokenizer.max_target_length.value_or(inputs.max_length);
      break;
  }
  return options;
}

std::optional<fs::path> generation_file(const TrainConfig& config, const fs::path& model_folder) {
  constexpr const char* kName = "generation_config.json";
  if (!config.training.generation_config) {
    const fs::path path = model_folder / kName;
    return fs::exists(path) ? std::optional<fs::path>(path) : std::nullopt;
  }
  const fs::path given = expand_home(*config.training.generation_config);
  const fs::path path = fs::is_directory(given) ? given / kName : given;
  if (!fs::is_regular_file(path)) {
    throw usage_error(fmt::format("training.generation_config: {}: no such file", path.string()),
                      "give a generation_config.json or its folder");
  }
  return path;
}

std::shared_ptr<const TextWriter> text_writer(const TrainConfig& config, const Inputs& inputs) {
  const auto generator = std::dynamic_pointer_cast<TextGenerator>(inputs.model);
  if (!generator) return nullptr;
  auto writer = std::make_shared<TextWriter>();
  writer->generator = generator;
  writer->options = read_generation_options(generation_file(config, pretrained_folder(config.model.path)),
                                            inputs.model->config_json(), inputs.model->max_positions());
  GenerationOptions& options = writer->options;
  options.max_length = config.training.generation_max_length.value_or(options.max_length);
  options.num_beams = config.training.generation_num_beams.value_or(options.num_beams);
  // The last token is never read.
  if (options.max_length > inputs.model->max_positions() + 1) {
    throw usage_error(fmt::format("texts of up to {} tokens are asked for, but the model has {} positions",
                                  options.max_length, inputs.model->max_positions()),
                      "set training.generation_max_length to less");
  }
  writer->decode = [tokenizer = inputs.tokenizer](const std::vector<std::int32_t>& ids) {
    return tokenizer->decode(ids, /*skip_special_tokens=*/true);
  };
  return writer;
}

MetricScope metric_scope(const TrainConfig& config, const Inputs& inputs) {
  MetricScope scope;
  scope.num_labels = inputs.num_labels;
  scope.multi_label = inputs.problem_type == ProblemType::kMultiLabel;
  scope.language_model = is_language_model(inputs.task);
  scope.writes_texts = config.training.predict_with_generate;
  if (inputs.task == Task::kTokenClassification) scope.tag_names = class_names(inputs.model->config_json());
  return scope;
}

}  // namespace dtrain
