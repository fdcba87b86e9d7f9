// HubTokenizer: the Tokenizer built from a TokenizerSpec. Added tokens are cut out first, the rest is normalised, cut
// into words and handed to the model; words met lately come from a cache of the thread.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "datasets/tokenizers/added_tokens.h"
#include "datasets/tokenizers/bert_normalizer.h"
#include "datasets/tokenizers/bpe_model.h"
#include "datasets/tokenizers/tokenizer.h"
#include "datasets/tokenizers/tokenizer_spec.h"
#include "datasets/tokenizers/word_piece_model.h"

namespace dtrain {

class WordCache;

class HubTokenizer final : public Tokenizer {
 public:
  // `where` names the files in errors.
  HubTokenizer(TokenizerSpec spec, const std::string& where);

  using Tokenizer::encode;
  void encode(std::string_view text, const EncodeOptions& options, std::vector<std::int32_t>& ids) const override;
  void encode_words(std::span<const std::string> words, const EncodeOptions& options, std::vector<std::int32_t>& ids,
                    std::vector<std::int32_t>& word) const override;
  [[nodiscard]] std::string decode(const std::vector<std::int32_t>& ids, bool skip_special_tokens) const override;

  [[nodiscard]] std::int64_t vocab_size() const override { return vocab_size_; }
  [[nodiscard]] std::optional<std::int32_t> token_to_id(std::string_view token) const override;
  [[nodiscard]] std::optional<std::string> id_to_token(std::int32_t id) const override;
  [[nodiscard]] std::optional<std::int32_t> pad_id() const override { return spec_.pad_id; }
  [[nodiscard]] std::optional<std::int32_t> eos_id() const override { return spec_.eos_id; }
  [[nodiscard]] std::optional<std::int32_t> mask_id() const override { return spec_.mask_id; }
  [[nodiscard]] std::vector<std::int32_t> special_ids() const override;
  [[nodiscard]] std::string_view kind() const override { return spec_.kind; }
  [[nodiscard]] const std::string& digest() const override { return digest_; }
  [[nodiscard]] const std::vector<std::filesystem::path>& files() const override { return spec_.files; }

 private:
  // Where the ids of one text go, and when enough of them are there.
  struct Output;
  // The ids to stay below for the text itself: those around it need room, too.
  [[nodiscard]] std::size_t room(const EncodeOptions& options) const;
  void encode_raw(std::string_view text, Output& output) const;
  void encode_text(std::string_view text, Output& output) const;
  void encode_pieces(std::string_view text, Output& output) const;
  void encode_bert_words(std::string_view text, Output& output) const;
  void encode_word(std::string_view word, Output& output) const;
  [[nodiscard]] std::string make_digest() const;

  TokenizerSpec spec_;
  std::uint64_t serial_;
  std::optional<BpeModel> bpe_;
  std::optional<WordPieceModel> word_piece_;
  BertNormalizer normalizer_;
  AddedTokenMatcher raw_tokens_;         // searched for in the text as given
  AddedTokenMatcher normalized_tokens_;  // searched for in the normalised text
  struct AddedName {
    std::string content;
    std::string decoded;  // what decode() writes: the normalised form of a normalised token
    bool special;
  };
  std::unordered_map<std::int32_t, AddedName> added_by_id_;
  std::unordered_map<std::string, std::int32_t> added_by_content_;
  std::int64_t vocab_size_ = 0;
  std::string digest_;
};

}  // namespace dtrain
