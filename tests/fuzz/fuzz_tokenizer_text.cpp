// Texts for the tokenizers of GPT-2 and BERT: any bytes are a text.
#include <algorithm>

#include "datasets/tokenizers/tokenizer.h"
#include "datasets/tokenizers/unicode.h"
#include "tests/fuzz/fuzz.h"
#include "tests/support/files.h"

namespace dtrain {
namespace {

using fuzz::require;

const Tokenizer& gpt2() {
  static const auto tokenizer = load_tokenizer(test::test_data("tokenizers/gpt2"));
  return *tokenizer;
}
const Tokenizer& bert() {
  static const auto tokenizer = load_tokenizer(test::test_data("tokenizers/bert-base-uncased"));
  return *tokenizer;
}

void check_ids(const Tokenizer& tokenizer, const std::vector<std::int32_t>& ids) {
  for (const std::int32_t id : ids) require(tokenizer.id_to_token(id).has_value(), "an id without a token");
}

// Cut to any length, a text has the ids that it starts with; those around it stay.
void check_lengths(const Tokenizer& tokenizer, std::string_view text, std::size_t before, std::size_t after) {
  const std::vector<std::int32_t> all = tokenizer.encode(text);
  require(all.size() >= before + after, "special ids are missing");
  for (std::size_t length = std::max<std::size_t>(before + after, 1); length <= all.size(); length += 1 + length / 4) {
    const auto cut = tokenizer.encode(text, {.max_length = static_cast<std::int64_t>(length)});
    require(cut.size() == length &&
                std::equal(cut.begin(), cut.end() - static_cast<std::ptrdiff_t>(after), all.begin()) &&
                std::equal(cut.end() - static_cast<std::ptrdiff_t>(after), cut.end(),
                           all.end() - static_cast<std::ptrdiff_t>(after)),
            "max_length changes more than the length", text);
  }
}

void check_words(const Tokenizer& tokenizer, std::string_view text) {
  std::vector<std::string> words;
  fuzz::Input rest(reinterpret_cast<const std::uint8_t*>(text.data()), text.size());
  while (!rest.empty()) words.emplace_back(rest.until(" "));
  std::vector<std::int32_t> ids;
  std::vector<std::int32_t> index;
  tokenizer.encode_words(words, {}, ids, index);
  require(ids.size() == index.size(), "ids and words differ in number");
  check_ids(tokenizer, ids);
  fuzz::accepts([&] {
    std::vector<std::int32_t> cut;
    std::vector<std::int32_t> cut_index;
    tokenizer.encode_words(words, {.max_length = 3}, cut, cut_index);
    require(cut.size() <= 3 && cut.size() == cut_index.size(), "words are cut to another length");
  });
  require(tokenizer.decode({static_cast<std::int32_t>(tokenizer.vocab_size())}, false).empty(), "a token from nowhere");
  std::int32_t last = -1;
  for (const std::int32_t word : index) {
    require(word == -1 || (word >= last && word < std::ssize(words)), "words out of order");
    last = std::max(last, word);
  }
}

void check(std::string_view text) {
  // Byte pairs lose nothing.
  const std::vector<std::int32_t> pairs = gpt2().encode(text);
  check_ids(gpt2(), pairs);
  require(gpt2().decode(pairs, false) == unicode::replace_invalid_utf8(text), "GPT-2 does not round-trip", text);
  check_lengths(gpt2(), text, 0, 0);
  check_words(gpt2(), text);
  // Word pieces do, but what is left of a text is the same text for BERT.
  const std::vector<std::int32_t> pieces = bert().encode(text);
  check_ids(bert(), pieces);
  require(unicode::is_valid_utf8(bert().decode(pieces, false)), "BERT decodes to invalid UTF-8", text);
  check_lengths(bert(), text, 1, 1);
  check_words(bert(), text);
  std::string repaired = unicode::replace_invalid_utf8(text);
  require(unicode::is_valid_utf8(repaired), "replace_invalid_utf8() leaves invalid UTF-8", text);
  require(unicode::is_valid_utf8(text) == (repaired == text), "two opinions on UTF-8", text);
  require(bert().encode(repaired) == pieces, "a repaired text is another one for BERT", text);
}

}  // namespace
}  // namespace dtrain

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  dtrain::check({reinterpret_cast<const char*>(data), size});
  return 0;
}
