// The files of a tokenizer: which ones are read, what they mean together, and what happens when they are damaged.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"
#include "core/file.h"
#include "core/json.h"
#include "datasets/tokenizers/tokenizer.h"
#include "tests/support/files.h"
#include "tests/support/temp_folder.h"

namespace dtrain {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

std::filesystem::path data(const std::string& name) { return test::test_data("tokenizers/" + name); }

// A tokenizer of the smallest size that has everything: letters of "abc", one merge.
Json small_bpe() {
  return Json::parse(R"({"version": "1.0", "truncation": null, "padding": null,
    "added_tokens": [{"id": 4, "content": "<end>", "special": true, "single_word": false, "lstrip": false,
                      "rstrip": false, "normalized": false}],
    "normalizer": null,
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true},
    "post_processor": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false},
    "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true},
    "model": {"type": "BPE", "dropout": null, "unk_token": null, "fuse_unk": false,
              "vocab": {"a": 0, "b": 1, "ab": 2, "c": 3}, "merges": ["a b"]}})");
}

Json small_word_piece() {
  return Json::parse(R"({"version": "1.0", "truncation": null, "padding": null,
    "added_tokens": [{"id": 0, "content": "[PAD]", "special": true, "normalized": false},
                     {"id": 1, "content": "[UNK]", "special": true, "normalized": false},
                     {"id": 2, "content": "[CLS]", "special": true, "normalized": false},
                     {"id": 3, "content": "[SEP]", "special": true, "normalized": false}],
    "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null,
                   "lowercase": true},
    "pre_tokenizer": {"type": "BertPreTokenizer"},
    "post_processor": {"type": "TemplateProcessing",
      "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                 {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
      "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]},
                         "[SEP]": {"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]}}},
    "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
    "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
              "max_input_chars_per_word": 100,
              "vocab": {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "a": 4, "##b": 5, "A": 6, "\u00e9": 7, "e": 8}}})");
}

// Faster than TempFolder::write, for thousands of files that need not survive a crash.
void overwrite(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

// The message of the Error that loading the folder throws, or "" when it throws none.
std::string loading_error(const std::filesystem::path& folder) {
  try {
    static_cast<void>(load_tokenizer(folder));
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kData) << error.what();
    EXPECT_NE(error.hint(), "") << error.what();
    return error.what();
  }
  return "";
}

std::string loading_error(const Json& tokenizer_json) {
  const test::TempFolder folder;
  folder.write("tokenizer.json", tokenizer_json.dump());
  return loading_error(folder.path());
}

void copy_to(const test::TempFolder& folder, const std::string& from, const std::vector<std::string>& names) {
  for (const std::string& name : names) std::filesystem::copy_file(data(from) / name, folder.path() / name);
}

TEST(TokenizerFilesTest, Gpt2) {
  const auto tokenizer = load_tokenizer(data("gpt2"));
  EXPECT_EQ(tokenizer->kind(), "gpt2");
  EXPECT_EQ(tokenizer->vocab_size(), 50257);
  EXPECT_EQ(tokenizer->eos_id(), 50256);
  EXPECT_EQ(tokenizer->pad_id(), std::nullopt);
  EXPECT_EQ(tokenizer->token_to_id("<|endoftext|>"), 50256);
  EXPECT_EQ(tokenizer->id_to_token(262), "\u0120the");
  EXPECT_EQ(tokenizer->token_to_id("\u0120the"), 262);
  EXPECT_EQ(tokenizer->id_to_token(50257), std::nullopt);
  EXPECT_EQ(tokenizer->id_to_token(-1), std::nullopt);
  EXPECT_THAT(tokenizer->files(),
              ElementsAre(data("gpt2") / "tokenizer.json", data("gpt2") / "vocab.json", data("gpt2") / "merges.txt"));
  EXPECT_THAT(tokenizer->encode("Hello world"), ElementsAre(15496, 995));
}

TEST(TokenizerFilesTest, Bert) {
  const auto tokenizer = load_tokenizer(data("bert-base-uncased"));
  EXPECT_EQ(tokenizer->kind(), "bert");
  EXPECT_EQ(tokenizer->vocab_size(), 30522);
  EXPECT_EQ(tokenizer->pad_id(), 0);
  EXPECT_EQ(tokenizer->eos_id(), std::nullopt);
  EXPECT_THAT(tokenizer->encode("Hello world"), ElementsAre(101, 7592, 2088, 102));
  EXPECT_THAT(tokenizer->encode("Hello world", {.add_special_tokens = false}), ElementsAre(7592, 2088));
}

TEST(TokenizerFilesTest, MaxLengthCountsSpecialIds) {
  const auto tokenizer = load_tokenizer(data("bert-base-uncased"));
  EXPECT_THAT(tokenizer->encode("Hello world", {.max_length = 3}), ElementsAre(101, 7592, 102));
  EXPECT_THAT(tokenizer->encode("Hello world", {.max_length = 2}), ElementsAre(101, 102));
  EXPECT_THAT(tokenizer->encode("[MASK] [MASK]", {.max_length = 3}), ElementsAre(101, 103, 102));
  EXPECT_THAT(tokenizer->encode("Hello world", {.max_length = 1, .add_special_tokens = false}), ElementsAre(7592));
  EXPECT_THROW(static_cast<void>(tokenizer->encode("Hello world", {.max_length = 1})), Error);
  EXPECT_THROW(static_cast<void>(tokenizer->encode("Hello world", {.max_length = -1})), Error);
}

TEST(TokenizerFilesTest, EncodeAppends) {
  const auto tokenizer = load_tokenizer(data("bert-base-uncased"));
  std::vector<std::int32_t> ids = {7, 8};
  tokenizer->encode("hello world", {.max_length = 3}, ids);
  EXPECT_THAT(ids, ElementsAre(7, 8, 101, 7592, 102));
}

TEST(TokenizerFilesTest, OlderFilesGiveTheSameTokenizer) {
  const test::TempFolder gpt2;
  copy_to(gpt2, "gpt2", {"vocab.json", "merges.txt"});
  EXPECT_EQ(load_tokenizer(gpt2.path())->digest(), load_tokenizer(data("gpt2"))->digest());
  const test::TempFolder bert;
  copy_to(bert, "bert-base-uncased", {"vocab.txt"});
  EXPECT_EQ(load_tokenizer(bert.path())->digest(), load_tokenizer(data("bert-base-uncased"))->digest());
  for (const char* text : {"It's a caf\u00e9 [MASK] <|endoftext|>!", "", "\u6f22 x"}) {
    EXPECT_EQ(load_tokenizer(gpt2.path())->encode(text), load_tokenizer(data("gpt2"))->encode(text));
    EXPECT_EQ(load_tokenizer(bert.path())->encode(text), load_tokenizer(data("bert-base-uncased"))->encode(text));
  }
  EXPECT_EQ(load_tokenizer(bert.path())->pad_id(), 0);
  EXPECT_EQ(load_tokenizer(gpt2.path())->kind(), "gpt2");
}

TEST(TokenizerFilesTest, WindowsLineEndsMakeNoDifference) {
  std::string text = read_file(data("bert-base-uncased") / "vocab.txt");
  for (std::size_t at = text.find('\n'); at != std::string::npos; at = text.find('\n', at + 2))
    text.insert(at, 1, '\r');
  const test::TempFolder folder;
  folder.write("vocab.txt", text);
  EXPECT_EQ(load_tokenizer(folder.path())->digest(), load_tokenizer(data("bert-base-uncased"))->digest());
}

TEST(TokenizerFilesTest, TruncationAndPaddingSectionsAreIgnored) {
  Json document = small_word_piece();
  const test::TempFolder folder;
  folder.write("tokenizer.json", document.dump());
  const auto plain = load_tokenizer(folder.path());
  document["truncation"] = {{"max_length", 3}, {"strategy", "LongestFirst"}, {"stride", 0}};
  document["padding"] = {{"strategy", {{"Fixed", 9}}}, {"direction", "Right"}, {"pad_id", 0}, {"pad_token", "[PAD]"}};
  folder.write("tokenizer.json", document.dump());
  const auto other = load_tokenizer(folder.path());
  EXPECT_EQ(other->digest(), plain->digest());
  EXPECT_THAT(other->encode("a a ab"), ElementsAre(2, 4, 4, 4, 5, 3));
}

TEST(TokenizerFilesTest, DigestFollowsWhatInfluencesIds) {
  const auto digest_of_document = [](const Json& document) {
    const test::TempFolder folder;
    folder.write("tokenizer.json", document.dump());
    return load_tokenizer(folder.path())->digest();
  };
  const std::string bpe = digest_of_document(small_bpe());
  const std::string word_piece = digest_of_document(small_word_piece());
  EXPECT_NE(bpe, word_piece);
  EXPECT_EQ(bpe, digest_of_document(small_bpe()));
  for (const char* patch :
       {R"({"model": {"merges": ["b a"], "vocab": {"ba": 2, "ab": null}}})", R"({"added_tokens": []})",
        R"({"pre_tokenizer": {"add_prefix_space": true}})", R"({"pre_tokenizer": {"use_regex": false}})"}) {
    Json document = small_bpe();
    document.merge_patch(Json::parse(patch));
    EXPECT_NE(digest_of_document(document), bpe) << patch;
  }
  for (const char* patch :
       {R"({"normalizer": {"lowercase": false}})", R"({"normalizer": {"clean_text": false}})",
        R"({"normalizer": {"handle_chinese_chars": false}})", R"({"post_processor": null})",
        R"({"normalizer": {"strip_accents": false}})", R"({"model": {"max_input_chars_per_word": 99}})"}) {
    Json document = small_word_piece();
    document.merge_patch(Json::parse(patch));
    EXPECT_NE(digest_of_document(document), word_piece) << patch;
  }
}

TEST(TokenizerFilesTest, ConfigurationNamesSpecialTokens) {
  const test::TempFolder folder;
  folder.write("tokenizer.json", small_bpe().dump());
  folder.write("tokenizer_config.json",
               R"({"tokenizer_class": "GPT2TokenizerFast", "eos_token": "<end>", "pad_token": "<pad>",
                   "add_prefix_space": true})");
  const auto tokenizer = load_tokenizer(folder.path());
  EXPECT_EQ(tokenizer->kind(), "gpt2");
  EXPECT_EQ(tokenizer->eos_id(), 4);
  EXPECT_EQ(tokenizer->pad_id(), 5);  // not in the vocabulary: the next free id, as transformers gives
  EXPECT_EQ(tokenizer->vocab_size(), 6);
  EXPECT_THAT(tokenizer->encode("ab<pad>c"), ElementsAre(2, 5, 3));
  // The map counts before the configuration, unless the latter has an added_tokens_decoder.
  folder.write("special_tokens_map.json", R"({"pad_token": {"content": "<end>", "lstrip": true}})");
  EXPECT_EQ(load_tokenizer(folder.path())->pad_id(), 4);
  folder.write("tokenizer_config.json",
               R"({"pad_token": "<pad>", "added_tokens_decoder": {"4": {"content": "<end>"}}})");
  EXPECT_EQ(load_tokenizer(folder.path())->pad_id(), 5);
  folder.write("tokenizer_config.json", R"({"added_tokens_decoder": {"3": {"content": "<end>"}}})");
  EXPECT_THAT(loading_error(folder.path()), AllOf(HasSubstr("tokenizer_config.json"), HasSubstr("<end>")));
}

TEST(TokenizerFilesTest, ConfigurationSettlesCase) {
  const test::TempFolder folder;
  folder.write("tokenizer.json", small_word_piece().dump());
  EXPECT_THAT(load_tokenizer(folder.path())->encode("A \u00c9"), ElementsAre(2, 4, 8, 3));
  folder.write("tokenizer_config.json", R"({"do_lower_case": false, "tokenizer_class": "BertTokenizer"})");
  EXPECT_THAT(load_tokenizer(folder.path())->encode("A \u00e9"), ElementsAre(2, 6, 7, 3));
  folder.write("tokenizer_config.json", R"({"do_lower_case": true, "strip_accents": false})");
  EXPECT_THAT(load_tokenizer(folder.path())->encode("A \u00c9"), ElementsAre(2, 4, 7, 3));
  // A general class takes tokenizer.json as it is.
  folder.write("tokenizer_config.json", R"({"do_lower_case": false, "tokenizer_class": "PreTrainedTokenizerFast"})");
  EXPECT_THAT(load_tokenizer(folder.path())->encode("A \u00c9"), ElementsAre(2, 4, 8, 3));
}

TEST(TokenizerFilesTest, SplitSpecialTokensLeavesThemInTheText) {
  const test::TempFolder folder;
  Json document = small_bpe();
  document["model"]["vocab"]["<"] = 5;
  document["model"]["vocab"]["d"] = 4;
  document["added_tokens"][0]["id"] = 6;
  folder.write("tokenizer.json", document.dump());
  EXPECT_THAT(load_tokenizer(folder.path())->encode("a<end>"), ElementsAre(0, 6));
  folder.write("tokenizer_config.json", R"({"split_special_tokens": true})");
  EXPECT_THAT(load_tokenizer(folder.path())->encode("a<end>"),
              ElementsAre(0, 5, 4));  // bytes without a token are dropped
}

TEST(TokenizerFilesTest, MissingFilesAreNamed) {
  const test::TempFolder folder;
  EXPECT_THAT(loading_error(folder.path()), AllOf(HasSubstr(folder.path().string()), HasSubstr("tokenizer.json")));
  folder.write("vocab.json", "{}");
  EXPECT_THAT(loading_error(folder.path()), HasSubstr("no vocab.json with merges.txt"));
  folder.write("merges.txt", "");
  EXPECT_THAT(loading_error(folder.path()), AllOf(HasSubstr("vocab.json"), HasSubstr("empty")));
}

TEST(TokenizerFilesTest, TokenizerOfAnotherClassIsAnError) {
  const test::TempFolder folder;
  folder.write("tokenizer.json", small_bpe().dump());
  folder.write("tokenizer_config.json", R"({"tokenizer_class": "BertTokenizer"})");
  EXPECT_THAT(loading_error(folder.path()), AllOf(HasSubstr("tokenizer_config.json"), HasSubstr("BertTokenizer")));
  folder.write("tokenizer_config.json", R"({"tokenizer_class": "RobertaTokenizer"})");
  EXPECT_EQ(load_tokenizer(folder.path())->kind(), "");
}

TEST(TokenizerFilesTest, TruncatedFilesAreErrors) {
  const std::string whole = small_word_piece().dump();
  const test::TempFolder folder;
  for (std::size_t size = 0; size < whole.size(); ++size) {
    overwrite(folder.path() / "tokenizer.json", whole.substr(0, size));
    EXPECT_THAT(loading_error(folder.path()), HasSubstr("tokenizer.json")) << size;
  }
  folder.write("tokenizer.json", whole);
  EXPECT_EQ(loading_error(folder.path()), "");
}

// A merge patch of a small tokenizer and what the error must name.
struct Damage {
  bool bpe;
  const char* patch;
  std::vector<std::string> names;
};

TEST(TokenizerFilesTest, UnsupportedComponentsAreNamed) {
  const std::vector<Damage> damages = {
      {true, R"({"model": {"type": "Unigram"}})", {"model", "Unigram"}},
      {true, R"({"model": {"type": "WordLevel"}})", {"model", "WordLevel"}},
      {true, R"({"model": {"dropout": 0.1}})", {"model", "dropout"}},
      {true, R"({"model": {"byte_fallback": true}})", {"model", "byte_fallback"}},
      {true, R"({"model": {"ignore_merges": true}})", {"model", "ignore_merges"}},
      {true, R"({"model": {"end_of_word_suffix": "</w>"}})", {"model", "end_of_word_suffix"}},
      {true, R"({"model": {"continuing_subword_prefix": "##"}})", {"model", "continuing_subword_prefix"}},
      {true, R"({"normalizer": {"type": "NFC"}})", {"normalizer", "NFC"}},
      {true, R"({"normalizer": {"type": "Sequence", "normalizers": []}})", {"normalizer", "Sequence"}},
      {true, R"({"pre_tokenizer": {"type": "Metaspace"}})", {"pre_tokenizer", "Metaspace"}},
      {true, R"({"pre_tokenizer": {"type": "BertPreTokenizer"}})", {"pre_tokenizer", "BertPreTokenizer with BPE"}},
      {true, R"({"pre_tokenizer": null})", {"pre_tokenizer", "missing"}},
      {true, R"({"post_processor": {"type": "Sequence"}})", {"post_processor", "Sequence"}},
      {true, R"({"decoder": {"type": "Fuse"}})", {"decoder", "Fuse"}},
      {true, R"({"version": "2.0"})", {"version", "2.0"}},
      {false, R"({"pre_tokenizer": {"type": "ByteLevel"}})", {"pre_tokenizer", "ByteLevel with WordPiece"}},
      {false, R"({"normalizer": {"type": "Lowercase"}})", {"normalizer", "Lowercase"}},
  };
  for (const Damage& damage : damages) {
    Json document = damage.bpe ? small_bpe() : small_word_piece();
    document.merge_patch(Json::parse(damage.patch));
    const std::string message = loading_error(document);
    EXPECT_THAT(message, HasSubstr("tokenizer.json")) << damage.patch;
    for (const std::string& name : damage.names) EXPECT_THAT(message, HasSubstr(name)) << damage.patch;
  }
}

TEST(TokenizerFilesTest, DamagedEntriesAreNamed) {
  const std::vector<Damage> damages = {
      {true, R"({"model": {"vocab": {"c": -1}}})", {"\"c\"", "-1", "out of range"}},
      {true, R"({"model": {"vocab": {"c": 4000000000}}})", {"\"c\"", "4000000000", "out of range"}},
      {true, R"({"model": {"vocab": {"c": 1}}})", {"\"c\"", "\"b\"", "has id 1"}},
      {true, R"({"model": {"vocab": {"c": "3"}}})", {"\"c\"", "not an integer"}},
      {true, R"({"model": {"vocab": {"c": 3.5}}})", {"\"c\"", "not an integer"}},
      {true, R"({"model": {"vocab": []}})", {"model.vocab", "object"}},
      {true, R"({"model": {"vocab": null}})", {"model", "\"vocab\" is missing"}},
      {true, R"({"model": {"merges": null, "type": "BPE"}})", {"model", "\"merges\" is missing"}},
      {true, R"({"model": {"merges": ["a z"]}})", {"merge 0", "\"z\"", "not in the vocabulary"}},
      {true, R"({"model": {"merges": ["a b", "b c"]}})", {"merge 1", "\"bc\"", "not in the vocabulary"}},
      {true, R"({"model": {"merges": ["ab"]}})", {"merges[0]", "two tokens"}},
      {true, R"({"model": {"merges": ["a b c"]}})", {"merges[0]", "two tokens"}},
      {true, R"({"model": {"merges": [["a"]]}})", {"merges[0]", "pair"}},
      {true, R"({"model": {"merges": [7]}})", {"merges[0]", "pair"}},
      {true, R"({"model": {"unk_token": "<unk>"}})", {"unk_token", "<unk>"}},
      {true, R"({"model": null})", {"\"model\" is missing"}},
      {true, R"({"added_tokens": [{"id": 9, "content": "<end>"}]})", {"added_tokens[0]", "<end>", "id 9"}},
      {true, R"({"added_tokens": [{"id": 1, "content": "a"}]})", {"added_tokens[0]", "\"a\"", "id 1"}},
      {true, R"({"added_tokens": [{"content": "<end>"}]})", {"added_tokens[0]", "\"id\" is missing"}},
      {true, R"({"added_tokens": [{"id": 4, "content": ""}]})", {"added_tokens[0]", "empty"}},
      {true,
       R"({"added_tokens": [{"id": 4, "content": "x"}, {"id": 4, "content": "x"}]})",
       {"added_tokens[1]", "twice"}},
      {true,
       R"({"added_tokens": [{"id": 4, "content": "x", "lstrip": 1}]})",
       {"added_tokens[0].lstrip", "true or false"}},
      {false, R"({"model": {"unk_token": "x"}})", {"unk_token", "\"x\"", "vocabulary"}},
      {false, R"({"model": {"unk_token": null}})", {"\"unk_token\" is missing"}},
      {false, R"({"model": {"max_input_chars_per_word": -1}})", {"max_input_chars_per_word"}},
      {false, R"({"post_processor": {"special_tokens": {"[CLS]": {"ids": [4]}}}})", {"[CLS]", "id 4"}},
      {false, R"({"post_processor": {"special_tokens": {"[CLS]": null}}})", {"special_tokens", "\"[CLS]\" is missing"}},
      {false, R"({"post_processor": {"special_tokens": {"[CLS]": {"tokens": ["[X]"], "ids": [2]}}}})", {"[X]"}},
      {false, R"({"post_processor": {"single": []}})", {"single", "sequence A once"}},
      {false, R"({"normalizer": {"lowercase": "yes"}})", {"normalizer.lowercase", "true or false"}},
      {false, R"({"added_tokens": [{"id": 9, "content": "\u0301", "normalized": true}]})", {"added token", "empty"}},
  };
  for (const Damage& damage : damages) {
    Json document = damage.bpe ? small_bpe() : small_word_piece();
    document.merge_patch(Json::parse(damage.patch));
    const std::string message = loading_error(document);
    for (const std::string& name : damage.names) EXPECT_THAT(message, HasSubstr(name)) << damage.patch;
  }
  std::string repeated = small_bpe().dump();
  repeated.replace(repeated.find("\"ab\":2"), 6, "\"a\":2");
  const test::TempFolder folder;
  folder.write("tokenizer.json", repeated);
  EXPECT_THAT(loading_error(folder.path()), AllOf(HasSubstr("\"a\""), HasSubstr("twice")));
}

TEST(TokenizerFilesTest, DamagedOlderFilesAreNamedWithLine) {
  const test::TempFolder gpt2;
  gpt2.write("vocab.json", R"({"a": 0, "b": 1, "ab": 2})");
  gpt2.write("merges.txt", "#version: 0.2\na b\nb\n");
  EXPECT_THAT(loading_error(gpt2.path()), HasSubstr("merges.txt:3"));
  gpt2.write("merges.txt", "a b\n\n");
  EXPECT_THAT(loading_error(gpt2.path()), HasSubstr("merges.txt:2"));
  gpt2.write("merges.txt", "a b\nb \xff\n");
  EXPECT_THAT(loading_error(gpt2.path()), AllOf(HasSubstr("merges.txt"), HasSubstr("UTF-8")));
  gpt2.write("merges.txt", "a b\nb z\n");
  EXPECT_THAT(loading_error(gpt2.path()), AllOf(HasSubstr("merges.txt:2"), HasSubstr("\"z\"")));
  gpt2.write("merges.txt", "a b");
  EXPECT_EQ(loading_error(gpt2.path()), "");
  const test::TempFolder bert;
  bert.write("vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\na\na\n");
  EXPECT_THAT(loading_error(bert.path()), AllOf(HasSubstr("vocab.txt:6"), HasSubstr("line 5")));
  bert.write("vocab.txt", "[PAD]\n[CLS]\n[SEP]\na\n");
  EXPECT_THAT(loading_error(bert.path()), AllOf(HasSubstr("vocab.txt"), HasSubstr("[UNK]")));
  bert.write("vocab.txt", "");
  EXPECT_THAT(loading_error(bert.path()), AllOf(HasSubstr("vocab.txt"), HasSubstr("empty")));
}

// Every byte of a small file replaced by a hostile one: an Error of kind data, or a tokenizer that works.
TEST(TokenizerFilesTest, NoByteOfAFileCanCrashIt) {
  const test::TempFolder folder;
  constexpr std::string_view kHostile("\0\"}9\xff", 5);
  int errors = 0;
  for (const std::string& whole : {small_bpe().dump(), small_word_piece().dump()}) {
    for (std::size_t i = 0; i < whole.size(); ++i) {
      std::string damaged = whole;
      damaged[i] = kHostile[i % kHostile.size()];
      overwrite(folder.path() / "tokenizer.json", damaged);
      if (!loading_error(folder.path()).empty()) {
        ++errors;
        continue;
      }
      const auto tokenizer = load_tokenizer(folder.path());
      for (const std::int32_t id : tokenizer->encode("ab c<end>[CLS]\u00e9", {.max_length = 9})) {
        EXPECT_TRUE(id >= 0 && id < tokenizer->vocab_size()) << i;
      }
    }
  }
  EXPECT_GT(errors, 1000);
}

}  // namespace
}  // namespace dtrain
