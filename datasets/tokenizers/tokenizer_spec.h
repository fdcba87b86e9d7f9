// TokenizerSpec: what the files of a tokenizer say, checked, with every name turned into an id where it can be.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "datasets/tokenizers/vocabulary.h"

namespace dtrain {

struct AddedToken {
  std::string content;
  std::int32_t id = -1;
  bool special = false;      // left out by decode(skip_special_tokens)
  bool single_word = false;  // matches only between non-word characters
  bool lstrip = false;       // takes the white space before it along
  bool rstrip = false;       // and after it
  bool normalized = false;   // is searched for in normalised text, itself normalised
};

struct BertNormalizerOptions {
  bool clean_text = false;            // control characters go, white space becomes a space
  bool handle_chinese_chars = false;  // ideographs become words of their own
  bool strip_accents = false;
  bool lowercase = false;
};

struct Merge {
  std::int32_t left;
  std::int32_t right;
  std::int32_t merged;
};

struct TokenizerSpec {
  enum class Model { kBytePair, kWordPiece };
  enum class Decoder { kJoinWithSpaces, kByteLevel, kWordPiece };

  Model model = Model::kWordPiece;
  std::string kind;       // "bert", "gpt2" or ""
  Vocabulary vocabulary;  // of the model; added tokens that it lacks are in added_tokens only
  std::optional<std::int32_t> unknown_id;

  // Byte pairs.
  std::vector<Merge> merges;  // by rank
  bool fuse_unknown = false;
  bool add_prefix_space = false;
  bool use_pattern = true;  // cut by GPT-2's pattern before merging

  // Word pieces.
  std::string continuation_prefix = "##";
  std::size_t max_word_characters = 100;
  BertNormalizerOptions normalizer;

  std::vector<AddedToken> added_tokens;
  bool split_special_tokens = false;  // special tokens inside text are ordinary text

  std::vector<std::int32_t> before;  // ids around the text
  std::vector<std::int32_t> after;

  Decoder decoder = Decoder::kJoinWithSpaces;
  std::string decoder_prefix = "##";
  bool decoder_cleanup = true;

  std::optional<std::int32_t> pad_id;
  std::optional<std::int32_t> eos_id;
  std::optional<std::int32_t> mask_id;
  std::vector<std::filesystem::path> files;
};

// Throws Error(kData) naming the file and the component.
[[nodiscard]] TokenizerSpec read_tokenizer_spec(const std::filesystem::path& folder);

}  // namespace dtrain
