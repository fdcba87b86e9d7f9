// ByteTokenizer: the smallest tokenizer there is, for tests of what stands around one. A byte b is the id b + 3; with
// special ids the text stands between 1 and 2.
#pragma once

#include <algorithm>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "datasets/tokenizers/tokenizer.h"

namespace dtrain::test {

class ByteTokenizer : public Tokenizer {
 public:
  explicit ByteTokenizer(bool has_special_ids = true, std::string digest = "bytes")
      : has_special_ids_(has_special_ids), digest_(std::move(digest)) {}

  using Tokenizer::encode;
  void encode(std::string_view text, const EncodeOptions& options, std::vector<std::int32_t>& ids) const override {
    const bool special = has_special_ids_ && options.add_special_tokens;
    std::size_t kept = text.size();
    if (options.max_length > 0) kept = std::min(kept, static_cast<std::size_t>(options.max_length) - (special ? 2 : 0));
    if (special) ids.push_back(1);
    for (const char byte : text.substr(0, kept)) ids.push_back(static_cast<unsigned char>(byte) + 3);
    if (special) ids.push_back(2);
  }
  void encode_words(std::span<const std::string> words, const EncodeOptions& options, std::vector<std::int32_t>& ids,
                    std::vector<std::int32_t>& word) const override {
    std::vector<std::int32_t> text;
    std::vector<std::int32_t> of_text;
    for (std::size_t i = 0; i < words.size(); ++i) {
      for (const char byte : words[i]) text.push_back(static_cast<unsigned char>(byte) + 3);
      of_text.resize(text.size(), static_cast<std::int32_t>(i));
    }
    const std::size_t special = has_special_ids_ ? 1 : 0;
    if (options.max_length > 0) {
      text.resize(std::min(text.size(), static_cast<std::size_t>(options.max_length) - 2 * special));
    }
    of_text.resize(text.size());
    ids.insert(ids.end(), special, 1);
    ids.insert(ids.end(), text.begin(), text.end());
    ids.insert(ids.end(), special, 2);
    word.insert(word.end(), special, -1);
    word.insert(word.end(), of_text.begin(), of_text.end());
    word.insert(word.end(), special, -1);
  }
  [[nodiscard]] std::string decode(const std::vector<std::int32_t>& ids, bool /*skip_special_tokens*/) const override {
    std::string text;
    for (const std::int32_t id : ids) {
      if (id >= 3) text += static_cast<char>(id - 3);
    }
    return text;
  }
  [[nodiscard]] std::int64_t vocab_size() const override { return 259; }
  [[nodiscard]] std::optional<std::int32_t> token_to_id(std::string_view) const override { return std::nullopt; }
  [[nodiscard]] std::optional<std::string> id_to_token(std::int32_t) const override { return std::nullopt; }
  [[nodiscard]] std::optional<std::int32_t> pad_id() const override { return 0; }
  [[nodiscard]] std::optional<std::int32_t> eos_id() const override { return 2; }
  [[nodiscard]] std::optional<std::int32_t> mask_id() const override { return 2; }
  [[nodiscard]] std::vector<std::int32_t> special_ids() const override { return {0, 1, 2}; }
  [[nodiscard]] std::string_view kind() const override { return ""; }
  [[nodiscard]] const std::string& digest() const override { return digest_; }
  [[nodiscard]] const std::vector<std::filesystem::path>& files() const override { return files_; }

 private:
  bool has_special_ids_;
  std::string digest_;
  std::vector<std::filesystem::path> files_;
};

}  // namespace dtrain::test
