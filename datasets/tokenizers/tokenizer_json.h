// tokenizer.json, the one-file format of the `tokenizers` library, and the pieces it shares with the older files.
#pragma once

#include <optional>
#include <string>

#include "datasets/tokenizers/json_view.h"
#include "datasets/tokenizers/tokenizer_spec.h"

namespace dtrain {

// Fills everything but kind, files and the special tokens that other files name. Components other than those of
// byte-level BPE and BERT are errors that name the file and the component. Its truncation and padding are ignored:
// EncodeOptions decide.
void read_tokenizer_json(const JsonView& root, TokenizerSpec& spec);

// An object of token: id.
void read_vocabulary(const JsonView& view, Vocabulary& vocabulary);

// Appends the merge of two tokens, which must be in the vocabulary, as must their union. `where` names the place.
void add_merge(std::string_view left, std::string_view right, const std::string& where, TokenizerSpec& spec);

// The flags and content of an added token's object; `id` stays -1.
[[nodiscard]] AddedToken read_added_token(const JsonView& view);

// Gives the token its id (the vocabulary's, or the next free one) and appends it. `id` is what the file says, if it
// does; a different one is damage. Does nothing when the token has been added before and `once` is false.
void add_token(AddedToken token, std::optional<std::int64_t> id, bool once, const std::string& where,
               TokenizerSpec& spec);

// The id of an added token or a token of the vocabulary.
[[nodiscard]] std::optional<std::int32_t> find_token(const TokenizerSpec& spec, std::string_view content);

}  // namespace dtrain
