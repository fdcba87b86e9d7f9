// The files of a tokenizer. The input is several of them, each after a line "--- NAME"; then the tokenizer encodes.
#include <algorithm>
#include <array>

#include "datasets/tokenizers/tokenizer.h"
#include "datasets/tokenizers/unicode.h"
#include "tests/fuzz/fuzz.h"
#include "tests/support/files.h"

namespace dtrain {
namespace {

using fuzz::require;

constexpr std::array<std::string_view, 7> kNames = {
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "vocab.json",
    "merges.txt",     "added_tokens.json"};
constexpr std::int32_t kMostIds = 2000;  // looked at one by one

void check_ids(const Tokenizer& tokenizer, const std::vector<std::int32_t>& ids) {
  for (const std::int32_t id : ids) require(id >= 0 && id < tokenizer.vocab_size(), "an id outside of the vocabulary");
  for (const bool skip : {false, true}) {
    require(unicode::is_valid_utf8(tokenizer.decode(ids, skip)), "decode() gives invalid UTF-8");
  }
}

void check_names(const Tokenizer& tokenizer) {
  const std::int64_t end = std::min<std::int64_t>(tokenizer.vocab_size(), kMostIds);
  for (std::int32_t id = 0; id < end; ++id) {
    const auto token = tokenizer.id_to_token(id);
    if (!token) continue;
    require(unicode::is_valid_utf8(*token), "a token that is no text", *token);
    require(tokenizer.token_to_id(*token) == id, "id_to_token() and token_to_id() differ", *token);
  }
  for (const auto& id : {tokenizer.pad_id(), tokenizer.eos_id(), tokenizer.mask_id()}) {
    if (id) check_ids(tokenizer, {*id});
  }
  check_ids(tokenizer, tokenizer.special_ids());
}

void check_text(const Tokenizer& tokenizer, const std::string& text) {
  const std::vector<std::int32_t> ids = tokenizer.encode(text);
  check_ids(tokenizer, ids);
  require(tokenizer.encode(text) == ids, "encode() gives another answer", text);
  for (const std::int64_t length : {1, 4}) {
    fuzz::accepts([&] {
      require(std::ssize(tokenizer.encode(text, {.max_length = length})) <= length, "more ids than max_length", text);
    });
  }
  const std::vector<std::string> words = {text, "", "b"};
  std::vector<std::int32_t> word_ids;
  std::vector<std::int32_t> index;
  tokenizer.encode_words(words, {}, word_ids, index);
  require(word_ids.size() == index.size(), "ids and words differ in number");
  check_ids(tokenizer, word_ids);
}

void check(fuzz::Input input) {
  const std::filesystem::path& folder = fuzz::fresh_folder();
  std::string all(input.rest());
  static_cast<void>(input.until("--- "));
  while (!input.empty()) {
    const std::string_view name = input.until("\n");
    const std::string_view content = input.until("\n--- ");
    if (std::find(kNames.begin(), kNames.end(), name) != kNames.end()) test::write_file(folder / name, content);
  }
  fuzz::accepts([&] {
    const auto tokenizer = load_tokenizer(folder);
    require(load_tokenizer(folder)->digest() == tokenizer->digest(), "the digest is another one");
    check_names(*tokenizer);
    check_text(*tokenizer, "");
    check_text(*tokenizer, "ab caab \xC3\xA9\xE4\xB8\xAD<end> [SEP]it's 12 \xF0\x9F\x98\x80\n\n Ab");
    check_text(*tokenizer, all.substr(0, 200));  // texts of the tokens themselves
    check_text(*tokenizer, all.substr(all.size() - std::min<std::size_t>(all.size(), 100)));
  });
}

}  // namespace
}  // namespace dtrain

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  dtrain::check({data, size});
  return 0;
}
