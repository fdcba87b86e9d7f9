// Writing texts with an encoder-decoder model: the most probable word at each step, or beam search, as generate() of
// transformers 5 does without sampling.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <vector>

#include <ATen/core/Tensor.h>

#include "core/json.h"
#include "datasets/batch.h"

namespace dtrain {

// Writes several texts at once, a token a step, and keeps what the next step needs.
class StepDecoder {
 public:
  virtual ~StepDecoder() = default;
  // `newest` [texts] int64: the token that each text ends with now. [texts, vocab] float32: scores of the next one.
  [[nodiscard]] virtual at::Tensor step(const at::Tensor& newest) = 0;
  // Text i goes on from what text order[i] is now; `order` [texts] int64.
  virtual void reorder(const at::Tensor& order) = 0;
};

class TextGenerator {
 public:
  virtual ~TextGenerator() = default;
  // Reads "input_ids" and "attention_mask" of the batch. Each example may have several texts, as many as any other,
  // which follow each other. To be called in evaluation mode and without gradients.
  [[nodiscard]] virtual std::unique_ptr<StepDecoder> start_decoder(const Batch& batch) = 0;
};

// When beam search ends: as soon as there are num_beams texts, when better ones are unlikely, or when they are
// impossible.
enum class BeamStopping : std::uint8_t { kYes, kNo, kNever };

// The names and meanings are those of transformers.GenerationConfig. Lengths count the first token, which no text
// shows.
struct GenerationOptions {
  std::int64_t max_length = 20;
  std::int64_t min_length = 0;
  std::int64_t num_beams = 1;  // 1: the most probable word at each step
  double length_penalty = 1;   // scores of texts are divided by their length to the power of this
  BeamStopping early_stopping = BeamStopping::kNo;
  std::int64_t no_repeat_ngram_size = 0;  // 0: any number of times
  double repetition_penalty = 1;
  std::int64_t decoder_start_token_id = 0;
  std::vector<std::int64_t> eos_token_ids;
  std::int64_t forced_bos_token_id = -1;  // -1: none
  std::int64_t forced_eos_token_id = -1;
};

// What `file`, a generation_config.json, says or, without one, config.json (`model_json`), which in old models has
// these keys too. Special tokens that the file lacks are those of config.json. Throws Error(kData) for what is out of
// range, and for options that are set and not supported.
[[nodiscard]] GenerationOptions read_generation_options(const std::optional<std::filesystem::path>& file,
                                                        const Json& model_json, std::int64_t max_positions);

// Of each example the ids that are written, the end token included when there is one, without the first token. Results
// do not depend on the other examples of the batch but for rounding. Local; runs on the device of the batch.
[[nodiscard]] std::vector<std::vector<std::int32_t>> generate(TextGenerator& generator, const Batch& batch,
                                                              const GenerationOptions& options);

}  // namespace dtrain
