// Tokenizer: text to the ids that the Hub's `tokenizers` library gives for the same files.
//
// Immutable after loading; encode() is const and thread-safe (caches are per thread). Text is UTF-8; each maximal
// invalid part is replaced by U+FFFD before anything else (the rule of Unicode 15, section 3.9, and of Python's
// errors="replace").
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace dtrain {

struct EncodeOptions {
  std::int64_t max_length = 0;     // ids kept, special ids included; 0: all. Truncates on the right.
  bool add_special_tokens = true;  // [CLS] ... [SEP] for BERT; nothing for GPT-2
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Appends the ids of `text` to `ids`.
  virtual void encode(std::string_view text, const EncodeOptions& options, std::vector<std::int32_t>& ids) const = 0;
  [[nodiscard]] std::vector<std::int32_t> encode(std::string_view text, const EncodeOptions& options = {}) const {
    std::vector<std::int32_t> ids;
    encode(text, options, ids);
    return ids;
  }
  // Appends the ids of words that somebody else has split, each encoded by itself (byte-level tokenizers put a space in
  // front), with special ids around all; `word` gets the index of the word of each id, -1 for special ones. That is
  // is_split_into_words=True of the library, with add_prefix_space=True.
  virtual void encode_words(std::span<const std::string> words, const EncodeOptions& options,
                            std::vector<std::int32_t>& ids, std::vector<std::int32_t>& word) const = 0;
  [[nodiscard]] virtual std::string decode(const std::vector<std::int32_t>& ids, bool skip_special_tokens) const = 0;

  [[nodiscard]] virtual std::int64_t vocab_size() const = 0;  // largest id + 1, added tokens included
  [[nodiscard]] virtual std::optional<std::int32_t> token_to_id(std::string_view token) const = 0;
  [[nodiscard]] virtual std::optional<std::string> id_to_token(std::int32_t id) const = 0;

  // From tokenizer_config.json / special_tokens_map.json / tokenizer.json; absent when the files name none (GPT-2 has
  // no pad).
  [[nodiscard]] virtual std::optional<std::int32_t> pad_id() const = 0;
  [[nodiscard]] virtual std::optional<std::int32_t> eos_id() const = 0;
  [[nodiscard]] virtual std::optional<std::int32_t> mask_id() const = 0;
  [[nodiscard]] virtual std::vector<std::int32_t> special_ids() const = 0;
  // The model type the files were written for ("bert", "gpt2", or "" when they do not say).
  [[nodiscard]] virtual std::string_view kind() const = 0;
  // Digest of everything that influences encode().
  [[nodiscard]] virtual const std::string& digest() const = 0;
  // The files in their folder that a checkpoint must carry so that AutoTokenizer.from_pretrained loads the same
  // tokenizer.
  [[nodiscard]] virtual const std::vector<std::filesystem::path>& files() const = 0;
};

// Reads `tokenizer.json`, or `vocab.json` + `merges.txt`, or `vocab.txt` in `folder`. Throws Error(kData) naming the
// file.
[[nodiscard]] std::shared_ptr<const Tokenizer> load_tokenizer(const std::filesystem::path& folder);

}  // namespace dtrain
