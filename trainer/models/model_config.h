// The settings of a model as config.json says them: every value checked, everything that is not supported refused by
// name.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "core/json.h"
#include "trainer/models/model.h"

namespace dtrain {

enum class Activation { kGelu, kGeluTanh, kRelu, kTanh, kSilu };

// What all sequence classifiers share.
struct ClassifierConfig {
  std::int64_t num_labels = 2;
  ProblemType problem_type = ProblemType::kSingleLabel;
  double label_smoothing = 0;    // see ModelOptions
  bool compute_padding = false;  // the same
  Json json;                     // config.json, to be written back: keys without meaning here are kept
};

struct BertConfig {
  std::int64_t vocab_size = 30522;
  std::int64_t hidden_size = 768;
  std::int64_t num_layers = 12;
  std::int64_t num_heads = 12;
  std::int64_t intermediate_size = 3072;
  std::int64_t max_positions = 512;
  std::int64_t type_vocab_size = 2;
  std::int64_t pad_token_id = 0;  // -1: none
  Activation activation = Activation::kGelu;
  double hidden_dropout = 0.1;
  double attention_dropout = 0.1;
  double classifier_dropout = 0.1;
  double layer_norm_eps = 1e-12;
  double initializer_range = 0.02;
};

struct Gpt2Config {
  std::int64_t vocab_size = 50257;
  std::int64_t hidden_size = 768;
  std::int64_t num_layers = 12;
  std::int64_t num_heads = 12;
  std::int64_t inner_size = 3072;
  std::int64_t max_positions = 1024;
  std::int64_t pad_token_id = -1;  // -1: none
  Activation activation = Activation::kGeluTanh;
  double embedding_dropout = 0.1;
  double attention_dropout = 0.1;
  double residual_dropout = 0.1;
  double layer_norm_eps = 1e-5;
  double initializer_range = 0.02;
  bool scale_attention = true;
  bool scale_by_layer = false;
};

// `json` is the content of `path` (named in errors). The options override; all throw Error(kData) or Error(kUsage).
[[nodiscard]] std::string read_model_type(const Json& json, const std::filesystem::path& path);
[[nodiscard]] BertConfig read_bert_config(const Json& json, const std::filesystem::path& path,
                                          const ModelOptions& options);
[[nodiscard]] Gpt2Config read_gpt2_config(const Json& json, const std::filesystem::path& path,
                                          const ModelOptions& options);
[[nodiscard]] ClassifierConfig read_classifier_config(const Json& json, const std::filesystem::path& path,
                                                      const ModelOptions& options);

// The config.json of a classifier, as transformers writes it: `config.json` with the head's keys brought up to date.
[[nodiscard]] Json classifier_json(const ClassifierConfig& config, const std::string& architecture,
                                   std::int64_t pad_token_id);

}  // namespace dtrain
