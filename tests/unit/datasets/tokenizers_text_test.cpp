// Text as such: UTF-8, Unicode properties, GPT-2's pattern, very long inputs, and the word cache.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

#include "datasets/tokenizers/byte_level.h"
#include "datasets/tokenizers/hash.h"
#include "datasets/tokenizers/tokenizer.h"
#include "datasets/tokenizers/trie.h"
#include "datasets/tokenizers/unicode.h"
#include "datasets/tokenizers/word_cache.h"
#include "tests/support/files.h"
#include "tests/support/temp_folder.h"

namespace dtrain {
namespace {

using testing::ElementsAre;

std::vector<std::string> pieces(std::string_view text) {
  std::vector<std::string> result;
  while (!text.empty()) {
    const std::size_t size = next_piece(text);
    result.emplace_back(text.substr(0, size));
    text.remove_prefix(size);
  }
  return result;
}

TEST(Utf8Test, MaximalPartsBecomeOneReplacementEach) {
  const std::string r = "\xEF\xBF\xBD";
  EXPECT_EQ(unicode::replace_invalid_utf8("a\xffz"), "a" + r + "z");
  EXPECT_EQ(unicode::replace_invalid_utf8("\xf0\x9f\x98"), r);  // cut short: one part
  EXPECT_EQ(unicode::replace_invalid_utf8("\xf0\x9f\x98 x"), r + " x");
  EXPECT_EQ(unicode::replace_invalid_utf8("\xed\xa0\x80"), r + r + r);  // a surrogate: no byte fits the next
  EXPECT_EQ(unicode::replace_invalid_utf8("\xc0\x80"), r + r);          // overlong
  EXPECT_EQ(unicode::replace_invalid_utf8("\xf4\x90\x80\x80"), r + r + r + r);
  // The example of Unicode, table 3-8.
  EXPECT_EQ(unicode::replace_invalid_utf8("a\xf1\x80\x80\xe1\x80\xc2"
                                          "b\x80"
                                          "c\x80\xbf"
                                          "d"),
            "a" + r + r + r + "b" + r + "c" + r + r + "d");
  EXPECT_EQ(unicode::replace_invalid_utf8("\u00e9\u6f22\U0001f600"), "\u00e9\u6f22\U0001f600");
}

TEST(Utf8Test, EncodesAndDecodesEveryCodePoint) {
  for (char32_t c = 0; c < unicode::kCodePoints; ++c) {
    std::string text;
    unicode::append_utf8(c, text);
    ASSERT_EQ(unicode::decode_at(text.data()).code_point, c);
    ASSERT_EQ(unicode::decode_before(text.data() + text.size()).code_point, c);
    ASSERT_EQ(unicode::is_valid_utf8(text), c < 0xD800 || c > 0xDFFF);
  }
}

TEST(UnicodeTest, LowerCase) {
  const auto lower = [](char32_t c) {
    std::u32string out;
    unicode::append_lower(c, out);
    return out;
  };
  EXPECT_EQ(lower(U'A'), U"a");
  EXPECT_EQ(lower(0x130), U"i\u0307");
  EXPECT_EQ(lower(0x3A3), U"\u03c3");  // no context: never the final form
  EXPECT_EQ(lower(0x139), U"\u013a");  // inside a run of step 2
  EXPECT_EQ(lower(0x13A), U"\u013a");
  EXPECT_EQ(lower(0x6F22), U"\u6f22");
}

TEST(UnicodeTest, CanonicalDecompositionAndOrder) {
  std::u32string text;
  for (const char32_t c : U"\u1e69\u0323\uac01\u212b") {
    if (c != 0) unicode::append_decomposed(c, text);
  }
  EXPECT_EQ(text, U"s\u0323\u0307\u0323\u1100\u1161\u11a8A\u030a");
  unicode::order_canonically(text);
  EXPECT_EQ(text, U"s\u0323\u0323\u0307\u1100\u1161\u11a8A\u030a");
}

TEST(ByteLevelTest, Pieces) {
  EXPECT_THAT(pieces("It's 3 o'clock, they'll say"),
              ElementsAre("It", "'s", " 3", " o", "'", "clock", ",", " they", "'ll", " say"));
  EXPECT_THAT(pieces("a  b"), ElementsAre("a", " ", " b"));
  EXPECT_THAT(pieces("a \n b \n"), ElementsAre("a", " \n", " b", " \n"));
  EXPECT_THAT(pieces("a\n\nb"), ElementsAre("a", "\n", "\n", "b"));
  EXPECT_THAT(pieces("   "), ElementsAre("   "));
  EXPECT_THAT(pieces("?'s 's"), ElementsAre("?'", "s", " '", "s"));
  EXPECT_THAT(pieces("'sx'"), ElementsAre("'s", "x", "'"));
  EXPECT_THAT(pieces("a\u0301b 1\u00bd"), ElementsAre("a", "\u0301", "b", " 1\u00bd"));
  EXPECT_THAT(pieces("\u00a0a"), ElementsAre("\u00a0", "a"));
}

TEST(ByteLevelTest, CharactersStandForBytes) {
  std::string all;
  for (unsigned byte = 0; byte < 256; ++byte)
    unicode::append_utf8(character_of_byte(static_cast<std::uint8_t>(byte)), all);
  const std::string bytes = bytes_of_token(all);
  ASSERT_EQ(bytes.size(), 256U);
  for (unsigned byte = 0; byte < 256; ++byte) EXPECT_EQ(static_cast<unsigned char>(bytes[byte]), byte);
  EXPECT_EQ(character_of_byte(' '), 0x120U);
  EXPECT_EQ(bytes_of_token("a b"), "a b");  // a space stands for no byte
}

TEST(TrieTest, FindsTheLongest) {
  Trie trie;
  EXPECT_TRUE(trie.insert("ab", 1));
  EXPECT_TRUE(trie.insert("abcd", 2));
  EXPECT_FALSE(trie.insert("ab", 3));
  EXPECT_EQ(trie.longest(Trie::kRoot, "abcx").size, 2U);
  EXPECT_EQ(trie.longest(Trie::kRoot, "abcdx").value, 2);
  EXPECT_EQ(trie.longest(Trie::kRoot, "ba").size, 0U);
  EXPECT_EQ(trie.longest(trie.walk(Trie::kRoot, "abc"), "d").value, 2);
  EXPECT_EQ(trie.walk(Trie::kRoot, "x"), Trie::kNone);
}

TEST(WordCacheTest, GivesBackWhatWasInsertedOrNothing) {
  WordCache cache;
  std::size_t found = 0;
  constexpr std::int32_t kWords = 300000;  // more than it holds: some are forgotten, none is wrong
  for (std::int32_t i = 0; i < kWords; ++i) {
    const std::string word = "word" + std::to_string(i);
    cache.insert(word, hash_bytes(word), std::vector<std::int32_t>{i, i + 1});
  }
  for (std::int32_t i = 0; i < kWords; ++i) {
    const std::string word = "word" + std::to_string(i);
    std::vector<std::int32_t> ids;
    if (cache.append(word, hash_bytes(word), ids)) {
      ++found;
      ASSERT_THAT(ids, ElementsAre(i, i + 1));
    }
  }
  EXPECT_GT(found, 1000U);
  EXPECT_LT(found, 100000U);
}

TEST(WordCacheTest, ForgetsAllWhenItsMemoryIsFull) {
  WordCache cache;
  const std::vector<std::int32_t> many(1000, 7);
  for (int i = 0; i < 1200; ++i) {
    const std::string word = "word" + std::to_string(i);
    cache.insert(word, hash_bytes(word), many);
  }
  std::vector<std::int32_t> ids;
  EXPECT_FALSE(cache.append("word0", hash_bytes("word0"), ids));
  EXPECT_TRUE(cache.append("word1199", hash_bytes("word1199"), ids));
  EXPECT_EQ(ids, many);
}

TEST(WordCacheTest, EqualHashesAreTold) {
  WordCache cache;
  cache.insert("one", 42, std::vector<std::int32_t>{1});
  std::vector<std::int32_t> ids;
  EXPECT_FALSE(cache.append("two", 42, ids));
  cache.insert("two", 42, std::vector<std::int32_t>{2});
  EXPECT_TRUE(cache.append("two", 42, ids));
  EXPECT_TRUE(cache.append("one", 42, ids));
  EXPECT_THAT(ids, ElementsAre(2, 1));
}

// A thread may use more tokenizers than it keeps caches for.
TEST(WordCacheTest, TokenizersDoNotShareWords) {
  std::vector<std::shared_ptr<const Tokenizer>> tokenizers;
  for (int i = 0; i < 6; ++i) {
    const test::TempFolder folder;
    std::string vocabulary = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n";
    for (int k = 0; k < i; ++k) vocabulary += "filler" + std::to_string(k) + "\n";
    folder.write("vocab.txt", vocabulary + "word\n");
    tokenizers.push_back(load_tokenizer(folder.path()));
  }
  for (int round = 0; round < 3; ++round) {
    for (std::size_t i = 0; i < tokenizers.size(); ++i) {
      EXPECT_THAT(tokenizers[i]->encode("word word"),
                  ElementsAre(2, static_cast<std::int32_t>(5 + i), static_cast<std::int32_t>(5 + i), 3));
    }
  }
}

// Ten megabytes without a place to cut: with quadratic work these would take hours.
TEST(LongTextTest, OneWordOfTenMegabytes) {
  constexpr std::size_t kSize = 10'000'000;
  const auto gpt2 = load_tokenizer(test::test_data("tokenizers/gpt2"));
  const auto bert = load_tokenizer(test::test_data("tokenizers/bert-base-uncased"));
  const std::string letters(kSize, 'a');
  // "aaaa" is the longest token of that letter in this vocabulary.
  const auto ids = gpt2->encode(letters);
  EXPECT_EQ(ids.size(), kSize / 4);
  EXPECT_EQ(ids.front(), gpt2->token_to_id("aaaa"));
  EXPECT_EQ(ids.back(), gpt2->token_to_id("aaaa"));
  EXPECT_THAT(bert->encode(letters), ElementsAre(101, 100, 102));
  EXPECT_EQ(gpt2->encode(std::string(kSize, ' ')).size(), kSize);  // no merges of spaces in this vocabulary
  // U+0301 goes as an accent; U+302E stays and has to be put in order with the others.
  std::string marks = "a";
  for (int i = 0; i < 1'000'000; ++i) marks += i % 2 == 0 ? "\u0301" : "\u302e";
  EXPECT_THAT(bert->encode(marks), ElementsAre(101, 100, 102));
  EXPECT_EQ(gpt2->decode(gpt2->encode(marks), false), marks);
}

}  // namespace
}  // namespace dtrain
