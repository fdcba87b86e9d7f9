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

// What the heads of all models share.
struct HeadConfig {
  Task task = Task::kSequenceClassification;
  std::int64_t num_labels = 2;  // of no meaning for language models
  ProblemType problem_type = ProblemType::kSingleLabel;
  double label_smoothing = 0;  // see ModelOptions, as the next three
  bool gradient_checkpointing = false;
  double neftune_noise_alpha = 0;
  bool compute_padding = false;
  Json json;  // config.json, to be written back: keys without meaning here are kept
};

// The relatives of BERT: the same blocks, other names and heads, small differences.
enum class EncoderFamily : std::uint8_t { kBert, kRoberta, kDistilBert };

struct EncoderConfig {
  EncoderFamily family = EncoderFamily::kBert;
  std::int64_t vocab_size = 30522;
  std::int64_t hidden_size = 768;
  std::int64_t num_layers = 12;
  std::int64_t num_heads = 12;
  std::int64_t intermediate_size = 3072;
  std::int64_t max_positions = 512;  // tokens that can be read
  std::int64_t first_position = 0;   // row of the position table for the first token
  std::int64_t type_vocab_size = 2;  // 0: no token types
  std::int64_t pad_token_id = 0;     // -1: none
  Activation activation = Activation::kGelu;
  double hidden_dropout = 0.1;
  double attention_dropout = 0.1;
  double attention_output_dropout = 0.1;  // of the projection after attention
  double classifier_dropout = 0.1;        // of sequences
  double token_classifier_dropout = 0.1;
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
  double classifier_dropout = 0.1;  // of tokens
  double layer_norm_eps = 1e-5;
  double initializer_range = 0.02;
  bool scale_attention = true;
  bool scale_by_layer = false;
};

// An encoder and a decoder, post-LayerNorm both.
struct BartConfig {
  std::int64_t vocab_size = 50265;
  std::int64_t hidden_size = 1024;
  std::int64_t encoder_layers = 12;
  std::int64_t encoder_heads = 16;
  std::int64_t encoder_inner_size = 4096;
  std::int64_t decoder_layers = 12;
  std::int64_t decoder_heads = 16;
  std::int64_t decoder_inner_size = 4096;
  std::int64_t max_positions = 1024;  // of either
  std::int64_t pad_token_id = 1;
  std::int64_t decoder_start_token_id = 2;
  Activation activation = Activation::kGelu;
  double dropout = 0.1;
  double attention_dropout = 0;
  double activation_dropout = 0;
  double initializer_range = 0.02;
  bool scale_embedding = false;  // word embeddings times the square root of hidden_size
};

// `json` is the content of `path` (named in errors). The options override; all throw Error(kData) or Error(kUsage).
[[nodiscard]] std::string read_model_type(const Json& json, const std::filesystem::path& path);
[[nodiscard]] EncoderConfig read_encoder_config(const Json& json, const std::filesystem::path& path,
                                                const ModelOptions& options);
[[nodiscard]] Gpt2Config read_gpt2_config(const Json& json, const std::filesystem::path& path,
                                          const ModelOptions& options);
[[nodiscard]] BartConfig read_bart_config(const Json& json, const std::filesystem::path& path,
                                          const ModelOptions& options);
[[nodiscard]] HeadConfig read_head_config(const Json& json, const std::filesystem::path& path,
                                          const ModelOptions& options);

// The config.json of a model, as transformers writes it: `config.json` with the head's keys brought up to date.
[[nodiscard]] Json model_json(const HeadConfig& config, const std::string& architecture, std::int64_t pad_token_id);

}  // namespace dtrain
