// Parquet files as pyarrow writes them (tests/golden/record_readers.py), and what damage to them leads to.
#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/file.h"
#include "tests/support/files.h"
#include "tests/unit/datasets/readers_fixture.h"

namespace dtrain {
namespace {

using test::Readers;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr int kRows = 10;

// What the files hold in their columns "text" and "label".
const std::vector<std::string>& recorded_texts() {
  static const std::vector<std::string> all = [] {
    std::vector<std::string> made;
    for (int i = 0; i < kRows; ++i) made.push_back("text " + std::to_string(i) + " \xC3\xA4");
    return made;
  }();
  return all;
}
const std::vector<double> kLabels = {0, 1, 0, 1, 0, 1, 0, 1, 0, 1};

class Parquet : public Readers {
 protected:
  RawDataset read_recorded(const std::string& name) {
    options_.path = test::test_data("readers/" + name + ".parquet");
    return read_raw_dataset(options_);
  }
  void expect_recorded_error(const std::string& name, const std::vector<std::string>& parts,
                             const std::string& hint = {}) {
    options_.path = test::test_data("readers/" + name + ".parquet");
    expect_error(ExitCode::kData, parts, hint);
  }
};

TEST_F(Parquet, TextsAndLabels) {
  EXPECT_TRUE(has_parquet());
  for (const char* name : {"plain", "snappy", "zstd", "groups"}) {
    SCOPED_TRACE(name);
    const RawDataset dataset = read_recorded(name);
    EXPECT_EQ(texts(dataset), recorded_texts());
    EXPECT_EQ(labels(dataset), kLabels);
    EXPECT_EQ(dataset.location(6), options_.path.string() + ": row 7");
    EXPECT_EQ(dataset.source_digest, source_digest(options_));
  }
  options_.class_names = {"pos", "neg"};
  const RawDataset coded = read_recorded("dictionary");
  EXPECT_EQ(texts(coded), recorded_texts());
  EXPECT_THAT(labels(coded), ElementsAre(1, 0, 1, 0, 1, 0, 1, 0, 1, 0));
}

TEST_F(Parquet, EveryTypeOfTextAndNumber) {
  options_.text_column = "large";
  for (const char* column : {"int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "bool"}) {
    SCOPED_TRACE(column);
    options_.label_column = column;
    const RawDataset dataset = read_recorded("types");
    EXPECT_EQ(texts(dataset), recorded_texts());
    EXPECT_EQ(labels(dataset), kLabels);
  }
  options_.text_column = "dotted.name";
  EXPECT_EQ(texts(read_recorded("types")), recorded_texts());
  options_.label_kind = LabelKind::kRegression;
  options_.num_labels = 1;
  for (const char* column : {"float", "double"}) {
    options_.label_column = column;
    EXPECT_THAT(labels(read_recorded("types")), ElementsAre(0, .25, .5, .75, 1, 1.25, 1.5, 1.75, 2, 2.25));
  }
  options_.label_kind = LabelKind::kMultiLabel;
  options_.num_labels = 2;
  options_.label_column = "flags";
  const RawDataset flags = read_recorded("types");
  EXPECT_THAT(flags.examples[0].labels, ElementsAre(0, 1));
  EXPECT_THAT(flags.examples[1].labels, ElementsAre(1, 0));
}

TEST_F(Parquet, InvalidUtf8IsReplacedOnRequestOnly) {
  options_.text_column = "latin1";
  options_.has_labels = false;
  expect_recorded_error("types", {"types.parquet: row 1: ", "invalid UTF-8"});
  options_.invalid_utf8 = InvalidUtf8::kReplace;
  EXPECT_EQ(read_recorded("types").examples[0].text, "caf\xEF\xBF\xBD");
}

TEST_F(Parquet, TaggedWords) {
  options_.record = RecordKind::kWords;
  options_.num_labels = 3;
  const RawDataset numbers = read_recorded("words");
  ASSERT_EQ(numbers.examples.size(), 10U);
  EXPECT_THAT(numbers.examples[5].words, ElementsAre("word5", "word5", "word5"));
  EXPECT_THAT(numbers.examples[5].labels, ElementsAre(2, 2, 2));
  EXPECT_THAT(numbers.examples[9].words, ElementsAre("word9"));
  EXPECT_THAT(numbers.class_names, IsEmpty());

  options_.words_column = "large";
  options_.tags_column = "names";
  const RawDataset names = read_recorded("words");
  EXPECT_THAT(names.class_names, ElementsAre("O", "B-x", "I-x"));
  EXPECT_EQ(labels(names), labels(numbers));
  EXPECT_EQ(names.examples[5].words, numbers.examples[5].words);

  options_.tags_column = "short";
  expect_recorded_error("words", {"words.parquet: row 1: ", "1 words and 0 tags"});
  options_.words_column = "names";
  options_.has_labels = false;
  EXPECT_THAT(read_recorded("words").examples[1].words, ElementsAre("B-x", "B-x"));
}

TEST_F(Parquet, PairsInsideAStruct) {
  options_.record = RecordKind::kPair;
  options_.source_column = "translation.en";
  options_.target_column = "translation.de";
  const RawDataset dataset = read_recorded("pairs");
  ASSERT_EQ(dataset.examples.size(), 10U);
  EXPECT_EQ(dataset.examples[7].text, "house 7");
  EXPECT_EQ(dataset.examples[7].target, "Haus 7");
  EXPECT_EQ(dataset.examples[7].line, 8);
  options_.target_column = "translation.fr";
  expect_recorded_error("pairs", {"no column \"translation.fr\"", "there are: id, translation.en, translation.de"},
                        "data.target");
  options_.target_column = "translation";
  expect_recorded_error("pairs", {"pairs.parquet: row 1: ", "\"translation\" is of the type struct", "a text"});
  options_.target_column = "translation.de.x";
  expect_recorded_error("pairs", {"no column \"translation.de.x\""});
}

TEST_F(Parquet, NullsAreErrors) {
  expect_recorded_error("nulls", {"nulls.parquet: row 7: ", "\"text\" is null"});
  options_.text_column = "good";
  EXPECT_EQ(texts(read_recorded("nulls")), recorded_texts());
  options_.label_column = "no_label";
  expect_recorded_error("nulls", {"nulls.parquet: row 7: ", "\"no_label\" is null"});
  options_.has_labels = false;
  options_.text_column = "all";
  expect_recorded_error("nulls", {"nulls.parquet: row 1: ", "\"all\" is null"});
  options_.has_labels = true;
  options_.record = RecordKind::kWords;
  expect_recorded_error("nulls", {"nulls.parquet: row 7: ", "\"tokens\" is null, or holds a null"});
  options_.words_column = "no_words";
  expect_recorded_error("nulls", {"nulls.parquet: row 7: ", "without words"});
  options_.record = RecordKind::kPair;
  options_.source_column = "pair.en";
  options_.target_column = "pair.de";
  expect_recorded_error("nulls", {"nulls.parquet: row 7: ", "\"pair.en\" is null"});
  // The struct is null, its texts cannot be.
  options_.source_column = "outer.en";
  options_.target_column = "outer.de";
  expect_recorded_error("nulls", {"nulls.parquet: row 7: ", "\"outer.en\" is null"});
  options_.source_column = "half.en";
  options_.target_column = "half.de";
  expect_recorded_error("nulls", {"nulls.parquet: row 7: ", "\"half.de\" is null"});
}

TEST_F(Parquet, ThatCannotBeUsed) {
  options_.text_column = "review";
  expect_recorded_error("plain", {"plain.parquet: no column \"review\"", "there are: id, text, label"}, "data.text");
  options_.label_column = "int8";
  options_.text_column = "bytes";
  expect_recorded_error("types", {"row 1: ", "\"bytes\" is of the type binary", "a text is needed"});
  options_.label_column = "label";
  options_.text_column = "id";
  expect_recorded_error("plain", {"\"id\" is of the type int64"});
  options_.text_column = "text";
  options_.label_column = "id";
  expect_recorded_error("plain", {"plain.parquet: row 3: ", "label 2 is out of range"});
  options_.label_column = "bytes";
  options_.text_column = "large";
  expect_recorded_error("types", {"\"bytes\" is of the type binary", "a number, a text, or a list"});
  options_.record = RecordKind::kWords;
  options_.tags_column = "flags";
  options_.words_column = "large";
  expect_recorded_error("types", {"\"large\" is of the type large_string", "a list of words"});
  options_.words_column = "flags";
  expect_recorded_error("types", {"\"flags\" is of the type", "a list of words"});
  options_ = {};
  expect_recorded_error("empty", {"empty.parquet", "no examples"});
  expect_error(ExitCode::kData, "text.parquet", "{\"text\": \"a\"}\n", {"text.parquet", "not a readable Parquet file"});
  expect_error(ExitCode::kData, "nothing.parquet", "", {"nothing.parquet", "not a readable Parquet file"});
}

TEST_F(Parquet, SeveralFiles) {
  for (const char* name : {"snappy", "zstd", "dictionary"}) {
    std::filesystem::copy(test::test_data(std::string("readers/") + name + ".parquet"), folder_.path());
  }
  options_.path = folder_.path() / "[sz]*.parquet";
  const RawDataset dataset = read_raw_dataset(options_);
  ASSERT_EQ(dataset.examples.size(), 20U);
  EXPECT_EQ(dataset.location(19), (folder_.path() / "zstd.parquet").string() + ": row 10");
}

// Cut off anywhere, a file is an error.
TEST_F(Parquet, CutOff) {
  for (const char* name : {"plain", "groups", "dictionary"}) {
    const std::string whole = read_file(test::test_data(std::string("readers/") + name + ".parquet"));
    for (std::size_t size = 0; size < whole.size(); size += size < whole.size() - 100 ? 7 : 1) {
      SCOPED_TRACE(size);
      expect_error(ExitCode::kData, "cut.parquet", std::string_view(whole).substr(0, size), {"cut.parquet"});
    }
  }
}

// With any bit flipped, a file is an error or is read: not every bit matters, and pages rarely have a checksum.
TEST_F(Parquet, Damaged) {
  const auto readable = [&] {
    try {
      (void)read_raw_dataset(options_);
      return true;
    } catch (const Error& error) {
      EXPECT_TRUE(error.code() == ExitCode::kData || error.code() == ExitCode::kIo) << error.what();
      return false;
    }
  };
  int errors = 0;
  for (const char* name : {"plain", "snappy", "zstd", "groups", "dictionary"}) {
    options_.class_names.clear();
    if (name == std::string_view("dictionary")) options_.class_names = {"neg", "pos"};
    const std::string whole = read_file(test::test_data(std::string("readers/") + name + ".parquet"));
    for (std::size_t bit = 0; bit < 8 * whole.size(); bit += 7) {
      SCOPED_TRACE(std::string(name) + ", bit " + std::to_string(bit));
      std::string flipped = whole;
      flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << bit % 8));
      options_.path = folder_.write("flipped.parquet", flipped);
      errors += readable() ? 0 : 1;
    }
  }
  EXPECT_GT(errors, 500);
  options_.class_names.clear();
  options_.record = RecordKind::kWords;
  options_.num_labels = 3;
  const std::string words = read_file(test::test_data("readers/words.parquet"));
  for (std::size_t bit = 0; bit < 8 * words.size(); bit += 11) {
    SCOPED_TRACE("words, bit " + std::to_string(bit));
    std::string flipped = words;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << bit % 8));
    options_.path = folder_.write("flipped.parquet", flipped);
    (void)readable();
  }
}

// Where the writer stored checksums, a page with any bit flipped is an error.
TEST_F(Parquet, ChecksumsOfPages) {
  const std::string whole = read_file(test::test_data("readers/plain.parquet"));
  // The first and the last text also stand in the statistics, which have no checksum.
  for (int i = 1; i < kRows - 1; ++i) {
    const std::size_t at = whole.find(recorded_texts()[static_cast<std::size_t>(i)]);
    ASSERT_NE(at, std::string::npos);
    std::string flipped = whole;
    flipped[at] ^= 1;
    expect_error(ExitCode::kData, "flipped.parquet", flipped, {"flipped.parquet", "not a readable Parquet file"});
  }
}

}  // namespace
}  // namespace dtrain
