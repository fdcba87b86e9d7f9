#include "trainer/models/model_config.h"

#include <array>
#include <cmath>
#include <optional>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "core/error.h"

namespace dtrain {
namespace {

constexpr std::int64_t kMaxExtent = std::int64_t{1} << 24;  // far above any model, far below an overflow
// Of labels that are only counted, as old files do it. Each gets a name: a kilobyte must not become gigabytes.
constexpr std::int64_t kMaxUnnamed = std::int64_t{1} << 16;

// Reads typed values of one config.json; a value of the wrong type or out of range is an Error(kData) naming the key.
class ConfigReader {
 public:
  ConfigReader(const Json& json, const std::filesystem::path& path) : json_(json), path_(path.string()) {}

  // The value of the first key that is there and not null.
  const Json* find(std::initializer_list<const char*> keys) const {
    for (const char* key : keys) {
      const auto found = json_.find(key);
      if (found != json_.end() && !found->is_null()) return &*found;
    }
    return nullptr;
  }

  std::int64_t size(std::initializer_list<const char*> keys, std::int64_t fallback,
                    std::int64_t most = kMaxExtent) const {
    const Json* value = find(keys);
    if (value == nullptr) return fallback;
    if (!value->is_number_integer()) fail(*keys.begin(), *value, "a whole number");
    const std::int64_t number = value->get<std::int64_t>();
    if (number < 1 || number > most) fail(*keys.begin(), *value, fmt::format("1 to {}", most));
    return number;
  }

  // -1 when missing or null.
  std::int64_t token_id(const char* key, std::int64_t fallback, std::int64_t vocab_size) const {
    const auto found = json_.find(key);
    if (found == json_.end()) return fallback;
    if (found->is_null()) return -1;
    if (!found->is_number_integer()) fail(key, *found, "a token id");
    const std::int64_t id = found->get<std::int64_t>();
    if (id < -1 || id >= vocab_size) fail(key, *found, fmt::format("a token id below vocab_size = {}", vocab_size));
    return id;
  }

  double number(const char* key, double fallback, double low, double high) const {
    const Json* value = find({key});
    if (value == nullptr) return fallback;
    if (!value->is_number()) fail(key, *value, "a number");
    const double number = value->get<double>();
    if (!(number >= low && number <= high)) fail(key, *value, fmt::format("{} to {}", low, high));
    return number;
  }

  double probability(const char* key, double fallback) const { return number(key, fallback, 0, 1); }

  bool flag(const char* key, bool fallback) const {
    const Json* value = find({key});
    if (value == nullptr) return fallback;
    if (!value->is_boolean()) fail(key, *value, "true or false");
    return value->get<bool>();
  }

  std::string text(const char* key, const std::string& fallback) const {
    const Json* value = find({key});
    if (value == nullptr) return fallback;
    if (!value->is_string()) fail(key, *value, "a string");
    return value->get<std::string>();
  }

  Activation activation(const char* key, const std::string& fallback) const {
    static constexpr std::array<std::pair<const char*, Activation>, 10> kKnown{{
        {"gelu", Activation::kGelu},
        {"gelu_python", Activation::kGelu},
        {"gelu_new", Activation::kGeluTanh},
        {"gelu_fast", Activation::kGeluTanh},
        {"gelu_pytorch_tanh", Activation::kGeluTanh},
        {"gelu_python_tanh", Activation::kGeluTanh},
        {"relu", Activation::kRelu},
        {"tanh", Activation::kTanh},
        {"silu", Activation::kSilu},
        {"swish", Activation::kSilu},
    }};
    const std::string name = text(key, fallback);
    for (const auto& [known, activation] : kKnown) {
      if (name == known) return activation;
    }
    refuse(key, fmt::format("{:?}", name), "gelu, gelu_new, gelu_fast, gelu_pytorch_tanh, relu, tanh and silu are");
  }

  void refuse_if(bool unsupported, const char* key, const std::string& supported) const {
    if (unsupported) refuse(key, json_.at(key).dump(), supported);
  }

  [[noreturn]] void fail(const char* key, const Json& value, const std::string& expected) const {
    throw data_error(fmt::format("{}: {} is {}, expected {}", path_, key, value.dump().substr(0, 60), expected));
  }

 private:
  [[noreturn]] void refuse(const char* key, const std::string& value, const std::string& supported) const {
    throw data_error(fmt::format("{}: {} = {} is not supported", path_, key, value.substr(0, 60)),
                     supported + " supported; train such a model with transformers");
  }

  const Json& json_;
  std::string path_;
};

// Options of transformers that change what the model computes and that no model here knows.
void refuse_common(const ConfigReader& reader) {
  reader.refuse_if(reader.flag("add_cross_attention", false), "add_cross_attention", "only models without it are");
  reader.refuse_if(reader.flag("is_decoder", false), "is_decoder", "only encoders (BERT) and plain GPT-2 are");
  reader.refuse_if(reader.find({"quantization_config"}) != nullptr, "quantization_config", "only plain weights are");
  const Json* pruned = reader.find({"pruned_heads"});
  reader.refuse_if(pruned != nullptr && !pruned->empty(), "pruned_heads", "only models with all heads are");
}

void refuse_two_stacks(const ConfigReader& reader) {
  reader.refuse_if(reader.flag("is_encoder_decoder", false), "is_encoder_decoder",
                   "of models with an encoder and a decoder only BART is");
}

void check_heads(std::int64_t hidden, std::int64_t heads, const std::filesystem::path& path) {
  if (hidden % heads != 0) {
    throw data_error(fmt::format("{}: the hidden size {} is not a multiple of the {} attention heads", path.string(),
                                 hidden, heads));
  }
}

std::int64_t chosen_pad(const ModelOptions& options, std::int64_t from_config, std::int64_t vocab_size) {
  if (options.pad_token_id < 0) return from_config;
  if (options.pad_token_id >= vocab_size) {
    throw usage_error(
        fmt::format("the pad token id {} is not below the model's vocab_size = {}", options.pad_token_id, vocab_size),
        "use the tokenizer that belongs to the model");
  }
  return options.pad_token_id;
}

// A defect in config.json must not become an allocation of terabytes.
void check_size(double parameters, const std::filesystem::path& path) {
  if (parameters > 1e11) {
    throw data_error(fmt::format("{}: the sizes make a model of {:.0e} parameters", path.string(), parameters),
                     "1e11 is the limit; check the sizes in the file");
  }
}

double chosen_dropout(const ModelOptions& options, double from_config) {
  return options.dropout >= 0 ? options.dropout : from_config;
}

const char* problem_type_name(ProblemType type) {
  switch (type) {
    case ProblemType::kSingleLabel:
      return "single_label_classification";
    case ProblemType::kMultiLabel:
      return "multi_label_classification";
    case ProblemType::kRegression:
      return "regression";
  }
  return "";
}

}  // namespace

std::string read_model_type(const Json& json, const std::filesystem::path& path) {
  if (!json.is_object()) throw data_error(path.string() + ": expected a JSON object");
  const std::string type = ConfigReader(json, path).text("model_type", "");
  for (const char* known : {"bert", "roberta", "distilbert", "gpt2", "bart"}) {
    if (type == known) return type;
  }
  throw data_error(
      type.empty() ? path.string() + ": model_type is missing"
                   : fmt::format("{}: model_type {:?} is not supported", path.string(), type),
      "model_type must be \"bert\" (BERT, MiniLM, ...), \"roberta\", \"distilbert\", \"gpt2\" or \"bart\"");
}

namespace {

// What the names of the keys do not change.
void finish_encoder(const ConfigReader& reader, const std::filesystem::path& path, const ModelOptions& options,
                    EncoderConfig& config) {
  config.pad_token_id =
      chosen_pad(options, reader.token_id("pad_token_id", config.pad_token_id, config.vocab_size), config.vocab_size);
  config.initializer_range = reader.number("initializer_range", config.initializer_range, 0, 10);
  check_heads(config.hidden_size, config.num_heads, path);
  const auto hidden = static_cast<double>(config.hidden_size);
  check_size(hidden * static_cast<double>(config.vocab_size + config.max_positions + config.type_vocab_size) +
                 static_cast<double>(config.num_layers) *
                     (4 * hidden * hidden + 2 * hidden * static_cast<double>(config.intermediate_size) + 1000),
             path);
}

EncoderConfig read_distilbert_config(const ConfigReader& reader, const std::filesystem::path& path,
                                     const ModelOptions& options) {
  EncoderConfig config;
  config.family = EncoderFamily::kDistilBert;
  config.vocab_size = reader.size({"vocab_size"}, config.vocab_size);
  config.hidden_size = reader.size({"dim"}, config.hidden_size);
  config.num_layers = reader.size({"n_layers"}, 6);
  config.num_heads = reader.size({"n_heads"}, config.num_heads);
  config.intermediate_size = reader.size({"hidden_dim"}, config.intermediate_size);
  config.max_positions = reader.size({"max_position_embeddings"}, config.max_positions);
  config.type_vocab_size = 0;
  config.activation = reader.activation("activation", "gelu");
  config.hidden_dropout = chosen_dropout(options, reader.probability("dropout", 0.1));
  config.attention_dropout = chosen_dropout(options, reader.probability("attention_dropout", 0.1));
  config.attention_output_dropout = 0;
  config.classifier_dropout = chosen_dropout(options, reader.probability("seq_classif_dropout", 0.2));
  config.token_classifier_dropout = config.hidden_dropout;
  finish_encoder(reader, path, options, config);
  return config;
}

}  // namespace

EncoderConfig read_encoder_config(const Json& json, const std::filesystem::path& path, const ModelOptions& options) {
  const ConfigReader reader(json, path);
  refuse_common(reader);
  refuse_two_stacks(reader);
  const std::string type = read_model_type(json, path);
  if (type == "distilbert") return read_distilbert_config(reader, path, options);
  reader.refuse_if(reader.text("position_embedding_type", "absolute") != "absolute", "position_embedding_type",
                   "only \"absolute\" is");
  const bool roberta = type == "roberta";
  EncoderConfig config;
  config.family = roberta ? EncoderFamily::kRoberta : EncoderFamily::kBert;
  config.vocab_size = reader.size({"vocab_size"}, roberta ? 50265 : config.vocab_size);
  config.hidden_size = reader.size({"hidden_size"}, config.hidden_size);
  config.num_layers = reader.size({"num_hidden_layers"}, config.num_layers);
  config.num_heads = reader.size({"num_attention_heads"}, config.num_heads);
  config.intermediate_size = reader.size({"intermediate_size"}, config.intermediate_size);
  config.max_positions = reader.size({"max_position_embeddings"}, config.max_positions);
  config.type_vocab_size = reader.size({"type_vocab_size"}, config.type_vocab_size);
  config.pad_token_id = roberta ? 1 : 0;
  config.activation = reader.activation("hidden_act", "gelu");
  config.hidden_dropout = chosen_dropout(options, reader.probability("hidden_dropout_prob", config.hidden_dropout));
  config.attention_dropout =
      chosen_dropout(options, reader.probability("attention_probs_dropout_prob", config.attention_dropout));
  config.attention_output_dropout = config.hidden_dropout;
  config.classifier_dropout = chosen_dropout(options, reader.probability("classifier_dropout", config.hidden_dropout));
  config.token_classifier_dropout = config.classifier_dropout;
  config.layer_norm_eps = reader.number("layer_norm_eps", config.layer_norm_eps, 0, 1);
  finish_encoder(reader, path, options, config);
  if (roberta) {
    // The row of the padding token and those before it are never a position.
    config.first_position = config.pad_token_id + 1;
    config.max_positions -= config.first_position;
    if (config.max_positions < 1) {
      throw data_error(
          fmt::format("{}: max_position_embeddings leaves no room beside the padding token", path.string()));
    }
  }
  return config;
}

Gpt2Config read_gpt2_config(const Json& json, const std::filesystem::path& path, const ModelOptions& options) {
  const ConfigReader reader(json, path);
  refuse_common(reader);
  refuse_two_stacks(reader);
  Gpt2Config config;
  config.vocab_size = reader.size({"vocab_size"}, config.vocab_size);
  config.hidden_size = reader.size({"n_embd", "hidden_size"}, config.hidden_size);
  config.num_layers = reader.size({"n_layer", "num_hidden_layers"}, config.num_layers);
  config.num_heads = reader.size({"n_head", "num_attention_heads"}, config.num_heads);
  config.inner_size = reader.size({"n_inner"}, 4 * config.hidden_size);
  config.max_positions = reader.size({"n_positions", "max_position_embeddings"}, config.max_positions);
  config.pad_token_id = chosen_pad(options, reader.token_id("pad_token_id", -1, config.vocab_size), config.vocab_size);
  config.activation = reader.activation("activation_function", "gelu_new");
  config.embedding_dropout = chosen_dropout(options, reader.probability("embd_pdrop", config.embedding_dropout));
  config.attention_dropout = chosen_dropout(options, reader.probability("attn_pdrop", config.attention_dropout));
  config.residual_dropout = chosen_dropout(options, reader.probability("resid_pdrop", config.residual_dropout));
  config.classifier_dropout = chosen_dropout(options, reader.find({"classifier_dropout"}) != nullptr
                                                          ? reader.probability("classifier_dropout", 0.1)
                                                          : reader.probability("hidden_dropout", 0.1));
  config.layer_norm_eps = reader.number("layer_norm_epsilon", config.layer_norm_eps, 0, 1);
  config.initializer_range = reader.number("initializer_range", config.initializer_range, 0, 10);
  config.scale_attention = reader.flag("scale_attn_weights", config.scale_attention);
  config.scale_by_layer = reader.flag("scale_attn_by_inverse_layer_idx", config.scale_by_layer);
  check_heads(config.hidden_size, config.num_heads, path);
  const auto hidden = static_cast<double>(config.hidden_size);
  check_size(hidden * static_cast<double>(config.vocab_size + config.max_positions) +
                 static_cast<double>(config.num_layers) *
                     (4 * hidden * hidden + 2 * hidden * static_cast<double>(config.inner_size) + 1000),
             path);
  return config;
}

BartConfig read_bart_config(const Json& json, const std::filesystem::path& path, const ModelOptions& options) {
  const ConfigReader reader(json, path);
  refuse_common(reader);
  reader.refuse_if(!reader.flag("is_encoder_decoder", true), "is_encoder_decoder", "only BART with both stacks is");
  for (const char* key : {"encoder_layerdrop", "decoder_layerdrop"}) {
    reader.refuse_if(reader.probability(key, 0) > 0, key, "only 0 is");
  }
  BartConfig config;
  config.vocab_size = reader.size({"vocab_size"}, config.vocab_size);
  config.hidden_size = reader.size({"d_model"}, config.hidden_size);
  config.encoder_layers = reader.size({"encoder_layers"}, config.encoder_layers);
  config.encoder_heads = reader.size({"encoder_attention_heads"}, config.encoder_heads);
  config.encoder_inner_size = reader.size({"encoder_ffn_dim"}, config.encoder_inner_size);
  config.decoder_layers = reader.size({"decoder_layers"}, config.decoder_layers);
  config.decoder_heads = reader.size({"decoder_attention_heads"}, config.decoder_heads);
  config.decoder_inner_size = reader.size({"decoder_ffn_dim"}, config.decoder_inner_size);
  config.max_positions = reader.size({"max_position_embeddings"}, config.max_positions);
  config.pad_token_id =
      chosen_pad(options, reader.token_id("pad_token_id", config.pad_token_id, config.vocab_size), config.vocab_size);
  config.decoder_start_token_id =
      reader.token_id("decoder_start_token_id", config.decoder_start_token_id, config.vocab_size);
  if (config.decoder_start_token_id < 0) {
    throw data_error(path.string() + ": decoder_start_token_id is missing", "name the token that a text begins with");
  }
  config.activation = reader.activation("activation_function", "gelu");
  config.dropout = chosen_dropout(options, reader.probability("dropout", config.dropout));
  config.attention_dropout = chosen_dropout(options, reader.probability("attention_dropout", config.attention_dropout));
  config.activation_dropout =
      chosen_dropout(options, reader.probability("activation_dropout", config.activation_dropout));
  config.initializer_range = reader.number("init_std", config.initializer_range, 0, 10);
  config.scale_embedding = reader.flag("scale_embedding", config.scale_embedding);
  check_heads(config.hidden_size, config.encoder_heads, path);
  check_heads(config.hidden_size, config.decoder_heads, path);
  const auto hidden = static_cast<double>(config.hidden_size);
  check_size(hidden * static_cast<double>(config.vocab_size + 2 * config.max_positions) +
                 static_cast<double>(config.encoder_layers) *
                     (4 * hidden * hidden + 2 * hidden * static_cast<double>(config.encoder_inner_size)) +
                 static_cast<double>(config.decoder_layers) *
                     (8 * hidden * hidden + 2 * hidden * static_cast<double>(config.decoder_inner_size)),
             path);
  return config;
}

namespace {

// The keys that hold a probability of dropout.
std::vector<const char*> dropout_keys(const std::string& model_type) {
  if (model_type == "gpt2") return {"embd_pdrop", "attn_pdrop", "resid_pdrop"};
  if (model_type == "distilbert") return {"dropout", "attention_dropout", "seq_classif_dropout"};
  if (model_type == "bart") return {"dropout", "attention_dropout", "activation_dropout", "classifier_dropout"};
  return {"hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"};
}

// id2label and label2id: the names that are wanted, else those that are there and fit, else LABEL_0, ...
void name_labels(const std::vector<std::string>& names, bool fits, std::int64_t num_labels, Json& json) {
  if (names.empty() && fits && json.contains("id2label") && !json["id2label"].is_null()) return;
  json["id2label"] = Json::object();
  json["label2id"] = Json::object();
  for (std::int64_t label = 0; label < num_labels; ++label) {
    const std::string name = names.empty() ? fmt::format("LABEL_{}", label) : names.at(static_cast<std::size_t>(label));
    json["id2label"][std::to_string(label)] = name;
    json["label2id"][name] = label;
  }
}

}  // namespace

HeadConfig read_head_config(const Json& json, const std::filesystem::path& path, const ModelOptions& options) {
  if (options.num_labels < 0 || options.num_labels > kMaxExtent) {
    throw usage_error(fmt::format("num_labels = {} is out of range", options.num_labels));
  }
  const ConfigReader reader(json, path);
  HeadConfig config;
  config.task = options.task;
  config.json = json;
  config.problem_type = options.problem_type;
  config.label_smoothing = options.label_smoothing;
  config.gradient_checkpointing = options.gradient_checkpointing;
  config.neftune_noise_alpha = options.neftune_noise_alpha;
  config.compute_padding = options.compute_padding;
  Json& out = config.json;
  if (is_language_model(options.task)) {
    reader.refuse_if(!reader.flag("tie_word_embeddings", true), "tie_word_embeddings", "only true is");
  } else {
    std::int64_t stored = 0;
    if (const Json* names = reader.find({"id2label"}); names != nullptr) {
      if (!names->is_object() || names->empty()) reader.fail("id2label", *names, "an object of names");
      stored = static_cast<std::int64_t>(names->size());
    } else {
      stored = reader.size({"num_labels", "_num_labels"}, 0, kMaxUnnamed);
    }
    const std::int64_t usual = options.problem_type == ProblemType::kRegression ? 1 : 2;
    config.num_labels = options.num_labels > 0 ? options.num_labels : (stored > 0 ? stored : usual);
    if (options.problem_type == ProblemType::kSingleLabel && config.num_labels < 2) {
      throw usage_error(
          fmt::format("{}: a classifier with {} label has nothing to choose from", path.string(), config.num_labels),
          "set num_labels to the number of classes, or choose regression");
    }
    name_labels(options.label_names, stored == config.num_labels, config.num_labels, out);
  }
  for (const char* superseded : {"num_labels", "_num_labels", "torch_dtype"}) out.erase(superseded);
  if (options.dropout >= 0) {
    for (const char* key : dropout_keys(read_model_type(json, path))) out[key] = options.dropout;
  }
  return config;
}

Json model_json(const HeadConfig& config, const std::string& architecture, std::int64_t pad_token_id) {
  Json json = config.json;
  json["architectures"] = {architecture};
  if (config.task == Task::kSequenceClassification) json["problem_type"] = problem_type_name(config.problem_type);
  json["dtype"] = "float32";
  if (pad_token_id >= 0) {
    json["pad_token_id"] = pad_token_id;
  } else {
    json["pad_token_id"] = nullptr;
  }
  return json;
}

Task task_named(const std::string& name) {
  static constexpr std::array<std::pair<const char*, Task>, 5> kTasks{{
      {"sequence-classification", Task::kSequenceClassification},
      {"token-classification", Task::kTokenClassification},
      {"masked-lm", Task::kMaskedLm},
      {"causal-lm", Task::kCausalLm},
      {"seq2seq-lm", Task::kSeq2SeqLm},
  }};
  for (const auto& [known, task] : kTasks) {
    if (name == known) return task;
  }
  throw usage_error(fmt::format("model.task: {:?} is not known", name),
                    "write sequence-classification, token-classification, masked-lm, causal-lm or seq2seq-lm");
}

}  // namespace dtrain
