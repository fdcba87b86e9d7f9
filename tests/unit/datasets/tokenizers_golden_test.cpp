// Equality with the Python library, from tests/data/tokenizers/golden.json (see the README beside it).
#include <gtest/gtest.h>
#include <zlib.h>

#include <algorithm>
#include <fstream>
#include <future>
#include <string>
#include <vector>

#include "core/file.h"
#include "core/json.h"
#include "datasets/tokenizers/bert_normalizer.h"
#include "datasets/tokenizers/tokenizer.h"
#include "datasets/tokenizers/unicode.h"
#include "tests/support/files.h"
#include "tests/support/temp_folder.h"

namespace dtrain {
namespace {

constexpr char32_t kBlock = 4096;  // code points to a checksum

const Json& golden() {
  static const Json document = read_json_file(test::test_data("tokenizers/golden.json"));
  return document;
}

std::string from_hex(const std::string& hex) {
  std::string bytes;
  for (std::size_t i = 0; i < hex.size(); i += 2) {
    bytes.push_back(static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  }
  return bytes;
}

std::vector<std::string> texts() {
  std::vector<std::string> result;
  for (const Json& hex : golden()["texts"]) result.push_back(from_hex(hex));
  return result;
}

std::vector<std::string> reviews() {
  std::ifstream lines(test::test_data("tokenizers/reviews.jsonl"));
  std::vector<std::string> result;
  for (std::string line; std::getline(lines, line);) result.push_back(Json::parse(line)["text"]);
  return result;
}

std::shared_ptr<const Tokenizer> load_variant(const Json& variant) {
  const test::TempFolder folder;
  const std::string base = variant["base"];
  Json document = read_json_file(test::test_data("tokenizers/" + base + "/tokenizer.json"));
  document.merge_patch(variant["patch"]);
  folder.write("tokenizer.json", document.dump());
  // A class that takes tokenizer.json as it is.
  folder.write("tokenizer_config.json", R"({"tokenizer_class": "PreTrainedTokenizerFast"})");
  return load_tokenizer(folder.path());
}

std::uint32_t checksum(const std::vector<std::int32_t>& ids, std::uint32_t before = 0) {
  return static_cast<std::uint32_t>(
      crc32(before, reinterpret_cast<const Bytef*>(ids.data()), static_cast<uInt>(ids.size() * sizeof(ids[0]))));
}

class GoldenTest : public testing::TestWithParam<std::string> {
 protected:
  const Json& variant() const { return golden()["variants"][GetParam()]; }
  std::shared_ptr<const Tokenizer> tokenizer_ = load_variant(variant());
};

TEST_P(GoldenTest, HostileTextsGiveTheLibrarysIds) {
  const auto all = texts();
  ASSERT_GT(all.size(), 300U);
  for (std::size_t i = 0; i < all.size(); ++i) {
    const auto expected = variant()["ids"][i].get<std::vector<std::int32_t>>();
    EXPECT_EQ(tokenizer_->encode(all[i]), expected) << "text " << i << " " << golden()["texts"][i];
  }
}

TEST_P(GoldenTest, DecodesLikeTheLibrary) {
  for (std::size_t i = 0; i < variant()["ids"].size(); ++i) {
    auto ids = variant()["ids"][i].get<std::vector<std::int32_t>>();
    EXPECT_EQ(tokenizer_->decode(ids, false), variant()["decoded"][i]) << "text " << i;
    ids.resize(std::min<std::size_t>(ids.size(), 3));
    EXPECT_EQ(tokenizer_->decode(ids, true), variant()["decoded_without_special"][i]) << "text " << i;
  }
}

TEST_P(GoldenTest, ReviewsGiveTheLibrarysIds) {
  const auto all = reviews();
  ASSERT_EQ(all.size(), 250U);
  for (std::size_t i = 0; i < all.size(); ++i) {
    EXPECT_EQ(checksum(tokenizer_->encode(all[i])), variant()["reviews"][i]) << "review " << i;
  }
}

TEST_P(GoldenTest, TruncatesLikeTheLibrary) {
  const auto all = reviews();
  for (std::size_t i = 0; i < variant()["truncated"].size(); ++i) {
    EXPECT_EQ(tokenizer_->encode(all[i], {.max_length = 16}),
              variant()["truncated"][i].get<std::vector<std::int32_t>>());
  }
}

TEST_P(GoldenTest, EveryCodePointGivesTheLibrarysIds) {
  if (!variant().contains("code_points")) return;  // recorded for the variants that differ in their use of Unicode
  // The counterpart of code_point_context in the recording script.
  const auto context = [](char32_t code_point) {
    std::string c;
    unicode::append_utf8(code_point, c);
    return "a" + c + "b " + c + " " + c + c + "'s" + c + "1 " + c + "\u0301\u0323" + c + "\u302a," + c + "\u6f22\n" + c;
  };
  const Json& expected = variant()["code_points"];
  ASSERT_EQ(expected.size(), unicode::kCodePoints / kBlock);
  const auto check = [&](char32_t parity) {
    for (char32_t block = parity; block < expected.size(); block += 2) {
      std::uint32_t digest = 0;
      for (char32_t c = block * kBlock; c < (block + 1) * kBlock; ++c) {
        if (c >= 0xD800 && c <= 0xDFFF) continue;
        std::vector<std::int32_t> ids(1);
        tokenizer_->encode(context(c), {}, ids);
        ids[0] = static_cast<std::int32_t>(ids.size() - 1);
        digest = checksum(ids, digest);
      }
      EXPECT_EQ(digest, expected[block]) << "code points from " << block * kBlock;
    }
  };
  // Two threads share the tokenizer, each with its own cache.
  auto other = std::async(std::launch::async, check, 1);
  check(0);
  other.get();
}

TEST(NormalizerGoldenTest, GivesTheLibrarysText) {
  for (const Json& record : golden()["normalizers"]) {
    const Json& on = record["options"];
    const BertNormalizer normalizer(
        {.clean_text = on[0], .handle_chinese_chars = on[1], .strip_accents = on[2], .lowercase = on[3]});
    const auto normalized = [&normalizer](const std::string& text) {
      std::string result;
      normalizer.normalize(text, result);
      return result;
    };
    for (std::size_t i = 0; i < golden()["combining_texts"].size(); ++i) {
      EXPECT_EQ(normalized(golden()["combining_texts"][i]), record["texts"][i]) << on << " text " << i;
    }
    for (char32_t block = 0; block < record["code_points"].size(); ++block) {
      uLong digest = 0;
      for (char32_t point = block * kBlock; point < (block + 1) * kBlock; ++point) {
        if (point >= 0xD800 && point <= 0xDFFF) continue;
        std::string c;
        unicode::append_utf8(point, c);
        // The counterpart of normalizer_context in the recording script.
        const std::string result = normalized(c + "\u302e" + c + "\u0334\U0001d165" + c + "\u0301a" + c);
        digest = crc32(digest, reinterpret_cast<const Bytef*>(result.data()), static_cast<uInt>(result.size()));
      }
      EXPECT_EQ(digest, record["code_points"][block]) << on << " code points from " << block * kBlock;
    }
  }
}

std::vector<std::string> variant_names() {
  std::vector<std::string> names;
  for (const auto& [name, unused] : golden()["variants"].items()) names.push_back(name);
  return names;
}
INSTANTIATE_TEST_SUITE_P(Variants, GoldenTest, testing::ValuesIn(variant_names()), [](const auto& variant) {
  std::string name = variant.param;
  std::erase_if(name, [](char c) { return c == ','; });
  std::replace(name.begin(), name.end(), ' ', '_');
  return name;
});

}  // namespace
}  // namespace dtrain
