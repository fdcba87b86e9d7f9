// The readers: what they read, and what they say about files that cannot be used.
#include <filesystem>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/files.h"
#include "tests/unit/datasets/readers_fixture.h"

namespace dtrain {
namespace {

using test::gzip;
using test::Readers;
using ::testing::ElementsAre;

TEST_F(Readers, JsonLines) {
  // A byte order mark, CRLF, other columns, escapes, U+0085 and U+2028 inside a text, no newline at the end.
  const RawDataset dataset =
      read("a.jsonl",
           "\xEF\xBB\xBF{\"text\": \"one\", \"label\": 0}\r\n"
           "{\"label\": 1, \"id\": [1, {\"text\": 7}], \"text\": \"t\\u00e9\\n\\ud83d\\ude00\"}\n"
           "{\"text\": \"a\xC2\x85\xE2\x80\xA8z\", \"label\": 1}");
  EXPECT_THAT(texts(dataset), ElementsAre("one", "t\xC3\xA9\n\xF0\x9F\x98\x80", "a\xC2\x85\xE2\x80\xA8z"));
  EXPECT_THAT(labels(dataset), ElementsAre(0, 1, 1));
  EXPECT_EQ(dataset.location(2), options_.path.string() + ":3");
}

TEST_F(Readers, JsonLinesColumnsAreNamedByTheCaller) {
  options_.text_column = "review";
  options_.label_column = "stars";
  options_.num_labels = 5;
  const RawDataset dataset = read("a.jsonl", "{\"text\": \"no\", \"review\": \"yes\", \"stars\": 4}\n\n\n");
  EXPECT_THAT(texts(dataset), ElementsAre("yes"));
  EXPECT_THAT(labels(dataset), ElementsAre(4));
}

TEST_F(Readers, JsonLinesThatCannotBeUsed) {
  const std::string good = "{\"text\": \"fine\", \"label\": 1}\n";
  const struct {
    std::string line;
    std::vector<std::string> parts;
  } kCases[] = {
      {"{\"text\": \"cut off", {"not valid JSON"}},
      {"{\"text\": \"a\", \"label\": 1} trailing", {"not valid JSON"}},
      {"text,label", {"not valid JSON"}},
      {"[1, 2]", {"not a JSON object"}},
      {"17", {"not a JSON object"}},
      {"{}", {"no column \"text\"", "none"}},
      {"{\"sentence\": \"a\", \"label\": 1}", {"no column \"text\"", "sentence, label"}},
      {"{\"text\": \"a\", \"target\": 1}", {"no column \"label\"", "text, target"}},
      {"{\"text\": 5, \"label\": 1}", {"\"text\" is not a text"}},
      {"{\"text\": null, \"label\": 1}", {"\"text\" is not a text"}},
      {"{\"text\": \"a\", \"text\": \"b\", \"label\": 1}", {"\"text\" stands twice"}},
      {"{\"text\": \"a\", \"label\": null}", {"\"label\" is neither a number"}},
      {"{\"text\": \"a\", \"label\": {}}", {"\"label\" is neither a number"}},
      {"{\"text\": \"a\", \"label\": 0.5}", {"label 0.5 is not a whole number"}},
      {"{\"text\": \"a\", \"label\": 2}", {"label 2 is out of range", "0 to 1"}},
      {"{\"text\": \"a\", \"label\": -1}", {"label -1 is out of range"}},
      {"{\"text\": \"a\", \"label\": \"pos\"}", {"label \"pos\" is a word", "data.labels"}},
      {"{\"text\": \"a\", \"label\": [1]}", {"the label is a list"}},
      {"{\"text\": \"a\", \"label\": [1, \"b\"]}", {"mixes numbers and words"}},
      {"{\"text\": \"a\", \"label\": [[1]]}", {"something else than numbers or words"}},
      {"{\"text\": \"caf\xE9\", \"label\": 1}", {"invalid UTF-8"}},
      {"{\"text\": \"\xED\xA0\x80\", \"label\": 1}", {"invalid UTF-8"}},
      {"{\"text\": \"\\udc00\", \"label\": 1}", {}},
      {"{\"text\": \"\\ud800x\", \"label\": 1}", {}},
      {std::string("{\"text\": \"a\0b\", \"label\": 1}", 26), {"zero byte"}},
      {"", {"empty line"}},
      {std::string(100000, '['), {"not valid JSON"}},
  };
  for (const auto& bad : kCases) {
    std::vector<std::string> parts = bad.parts;
    parts.push_back("bad.jsonl:2: ");
    SCOPED_TRACE(bad.line.substr(0, 80));
    expect_error(ExitCode::kData, "bad.jsonl", good + bad.line + "\n" + good, parts);
  }
  expect_error(ExitCode::kData, "empty.jsonl", "", {"empty.jsonl", "no examples"});
  expect_error(ExitCode::kData, "blank.jsonl", "\n\n", {"blank.jsonl", "no examples"});
  expect_error(ExitCode::kData, "texts.jsonl", "{\"text\": \"\", \"label\": 1}\n",
               {"texts.jsonl", "all 1 texts are empty"});
}

// Texts to predict: whatever else is in the record is not looked at.
TEST_F(Readers, DataWithoutLabels) {
  options_.has_labels = false;
  const RawDataset lines = read("new.jsonl", "{\"text\": \"a\"}\n{\"text\": \"b\", \"label\": \"no class\"}\n");
  EXPECT_THAT(texts(lines), ElementsAre("a", "b"));
  EXPECT_THAT(labels(lines), ElementsAre(0, 0));
  options_.label_kind = LabelKind::kMultiLabel;
  options_.num_labels = 3;
  const RawDataset values = read("new.csv", "id,text\n7,c\n");
  EXPECT_THAT(texts(values), ElementsAre("c"));
  EXPECT_THAT(labels(values), ElementsAre(0, 0, 0));
}

TEST_F(Readers, InvalidUtf8IsReplacedOnRequestOnly) {
  options_.invalid_utf8 = InvalidUtf8::kReplace;
  // One U+FFFD for each maximal part: a lone byte, a sequence cut off after two of three bytes, two bytes that start
  // nothing.
  const RawDataset dataset = read("a.jsonl", "{\"text\": \"caf\xE9 \xE2\x82x\xFF\xFF\", \"label\": 1}\n");
  EXPECT_THAT(texts(dataset), ElementsAre("caf\xEF\xBF\xBD \xEF\xBF\xBDx\xEF\xBF\xBD\xEF\xBF\xBD"));
  EXPECT_THAT(texts(read("a.csv", "text,label\ncaf\xE9,1\n")), ElementsAre("caf\xEF\xBF\xBD"));
}

TEST_F(Readers, ClassNames) {
  options_.class_names = {"neg", "pos"};
  EXPECT_THAT(labels(read("a.jsonl", "{\"text\": \"a\", \"label\": \"pos\"}\n{\"text\": \"b\", \"label\": 0}\n")),
              ElementsAre(1, 0));
  EXPECT_THAT(labels(read("a.csv", "label,text\npos,a\nneg,b\n1,c\n")), ElementsAre(1, 0, 1));
  expect_error(ExitCode::kData, "b.csv", "label,text\npos,a\nneutral,b\n", {"b.csv:3", "neutral", "neg, pos"});
  // Names that look like numbers are names.
  options_.class_names = {"1", "0"};
  EXPECT_THAT(labels(read("c.csv", "label,text\n1,a\n0,b\n")), ElementsAre(0, 1));
  options_.class_names = {"a", "b", "c"};
  expect_error(ExitCode::kUsage, {"data.labels names 3 classes", "2"});
  options_.class_names = {"a", "a"};
  expect_error(ExitCode::kUsage, {"twice"});
}

TEST_F(Readers, RegressionLabels) {
  options_.label_kind = LabelKind::kRegression;
  options_.num_labels = 1;
  EXPECT_THAT(labels(read("a.jsonl", "{\"text\": \"a\", \"label\": -2.5}\n{\"text\": \"b\", \"label\": 3}\n")),
              ElementsAre(-2.5, 3));
  EXPECT_THAT(labels(read("a.tsv", "text\tlabel\na\t1e-3\n")), ElementsAre(1e-3));
  expect_error(ExitCode::kData, "b.csv", "text,label\na,nan\n", {"b.csv:2", "not a finite"});
  expect_error(ExitCode::kData, "c.csv", "text,label\na,1e39\n", {"c.csv:2", "32-bit"});
  expect_error(ExitCode::kData, "d.csv", "text,label\na,many\n", {"d.csv:2", "not a number"});
  options_.num_labels = 2;
  EXPECT_THAT(labels(read("e.jsonl", "{\"text\": \"a\", \"label\": [1.5, 2]}\n")), ElementsAre(1.5, 2));
  expect_error(ExitCode::kData, "f.jsonl", "{\"text\": \"a\", \"label\": [1.5]}\n", {"f.jsonl:1", "2 numbers"});
}

TEST_F(Readers, SeveralLabelsPerExample) {
  options_.label_kind = LabelKind::kMultiLabel;
  options_.num_labels = 3;
  const auto json = [](const std::string& label) { return "{\"text\": \"a\", \"label\": " + label + "}\n"; };
  EXPECT_THAT(labels(read("a.jsonl", json("[0, 1, 1]") + json("[0.0, 0.0, 0.0]"))), ElementsAre(0, 1, 1, 0, 0, 0));
  EXPECT_THAT(labels(read("b.jsonl", json("[2]") + json("[]") + json("[2, 0]"))),
              ElementsAre(0, 0, 1, 0, 0, 0, 1, 0, 1));
  EXPECT_THAT(labels(read("c.csv", "text,label\na,0 1 1\nb,\"1,0,0\"\n")), ElementsAre(0, 1, 1, 1, 0, 0));
  expect_error(ExitCode::kData, "d.jsonl", json("[0, 1, 1]") + json("[2]"), {"d.jsonl:2", "list of classes"});
  expect_error(ExitCode::kData, "e.jsonl", json("[3]"), {"e.jsonl:1", "out of range"});
  expect_error(ExitCode::kData, "f.jsonl", json("[2, 2]"), {"f.jsonl:1", "twice"});
  expect_error(ExitCode::kData, "g.jsonl", json("1"), {"g.jsonl:1", "not a list"});
  expect_error(ExitCode::kData, "h.jsonl", json("[0, 0.5, 1]"), {"h.jsonl:1", "0.5"});
  options_.class_names = {"joy", "fear", "7"};
  EXPECT_THAT(labels(read("i.jsonl", json("[\"fear\", \"7\"]"))), ElementsAre(0, 1, 1));
  EXPECT_THAT(labels(read("i.csv", "text,label\na,fear;7\n")), ElementsAre(0, 1, 1));
  expect_error(ExitCode::kData, "j.jsonl", json("[\"anger\"]"), {"j.jsonl:1", "anger"});
}

TEST_F(Readers, CommaSeparatedValues) {
  const RawDataset dataset = read("a.csv",
                                  "\xEF\xBB\xBFid,text,label\r\n"
                                  "1,plain,0\r\n"
                                  "2,\"a, \"\"quoted\"\"\r\nfield over\ntwo ends\",1\r\n"
                                  "\r\n"
                                  "3,a \"bare\" quote,1\n"
                                  "4,,0\n"
                                  "5,\"last\",\"1\"");
  EXPECT_THAT(texts(dataset),
              ElementsAre("plain", "a, \"quoted\"\r\nfield over\ntwo ends", "a \"bare\" quote", "", "last"));
  EXPECT_THAT(labels(dataset), ElementsAre(0, 1, 1, 0, 1));
  EXPECT_EQ(dataset.location(1), options_.path.string() + ":3");
  EXPECT_EQ(dataset.location(2), options_.path.string() + ":7");
  EXPECT_THAT(texts(read("a.tsv", "label\ttext\n1\tone, two\n0\t\"a\tb\"\n")), ElementsAre("one, two", "a\tb"));
}

TEST_F(Readers, CommaSeparatedValuesThatCannotBeUsed) {
  const struct {
    std::string bytes;
    std::vector<std::string> parts;
  } kCases[] = {
      {"review,label\na,1\n", {":1: ", "no column \"text\"", "review, label"}},
      {"text,target\na,1\n", {":1: ", "no column \"label\"", "text, target"}},
      {"text,label,text\na,1,b\n", {":1: ", "twice"}},
      {"text,label\na,1\nb\n", {":3: ", "1 fields"}},
      {"text,label\na,1\nb,1,2\n", {":3: ", "3 fields", "header has 2"}},
      {"text,label\n\"a\nb\",1\n\"never closed,1\nc,0\n", {":4: ", "no closing quote"}},
      {"text,label\n\"a\" b,1\n", {":2: ", "after the closing quote"}},
      {"text,label\na,1\nb,x\n", {":3: ", "\"x\" is a word"}},
      {"text,label\na,\n", {":2: ", "\"\" is a word"}},
      {"text,label\na,1x\n", {":2: ", "\"1x\" is a word"}},
      {"text,label\na,9\n", {":2: ", "label 9 is out of range"}},
      {"text,label\na,inf\n", {":2: ", "out of range"}},
      {"text,label\na\xC3,1\n", {":2: ", "invalid UTF-8"}},
      {std::string("text,label\na\0,1\n", 16), {":2: ", "zero byte"}},
      {"text,label\n", {"no examples"}},
      {"", {"no examples"}},
  };
  for (const auto& bad : kCases) {
    std::vector<std::string> parts = bad.parts;
    parts.push_back("bad.csv");
    SCOPED_TRACE(bad.bytes);
    expect_error(ExitCode::kData, "bad.csv", bad.bytes, parts);
  }
}

TEST_F(Readers, GzipInOneOrSeveralMembers) {
  const std::string first = "{\"text\": \"one\", \"label\": 0}\n{\"text\": \"tw";
  const std::string second = "o\", \"label\": 1}\n";
  EXPECT_THAT(texts(read("a.jsonl.gz", gzip(first + second))), ElementsAre("one", "two"));
  EXPECT_THAT(texts(read("b.jsonl.gz", gzip(first) + gzip("") + gzip(second))), ElementsAre("one", "two"));
  EXPECT_THAT(texts(read("c.csv.gz", gzip("text,label\nx,1\n"))), ElementsAre("x"));
  EXPECT_THAT(texts(read("c.tsv.gz", gzip("text\tlabel\nx\t1\n"))), ElementsAre("x"));
}

TEST_F(Readers, DamagedGzip) {
  std::string text;
  for (int i = 0; i < 300; ++i) text += "{\"text\": \"number " + std::to_string(i * i) + "\", \"label\": 1}\n";
  const std::string packed = gzip(text);
  for (std::size_t size = 0; size < packed.size(); ++size) {
    SCOPED_TRACE(size);
    expect_error(ExitCode::kData, "cut.jsonl.gz", packed.substr(0, size), {"cut.jsonl.gz", "gzip"});
  }
  std::string flipped = packed;
  flipped[packed.size() / 2] ^= 4;
  expect_error(ExitCode::kData, "flip.jsonl.gz", flipped, {"flip.jsonl.gz"});
  expect_error(ExitCode::kData, "tail.jsonl.gz", packed + "rest", {"tail.jsonl.gz", "gzip"});
  expect_error(ExitCode::kData, "plain.jsonl.gz", text, {"plain.jsonl.gz", "gzip"});
  expect_error(ExitCode::kData, "packed.jsonl", packed, {"packed.jsonl:1", "zero byte"});
}

TEST_F(Readers, FolderPerClass) {
  folder_.write("imdb/pos/10_9.txt", "ten");
  folder_.write("imdb/pos/1_7.txt", "one\r\nline");
  folder_.write("imdb/neg/0_3.txt.gz", gzip("packed"));
  folder_.write("imdb/neg/0_1.txt", "zero");
  folder_.write("imdb/neg/.hidden", "never read");
  folder_.write("imdb/urls_pos.txt", "no example");
  options_.path = folder_.path() / "imdb";
  const RawDataset dataset = read_raw_dataset(options_);
  EXPECT_THAT(texts(dataset), ElementsAre("zero", "packed", "ten", "one\r\nline"));
  EXPECT_THAT(labels(dataset), ElementsAre(0, 0, 1, 1));
  EXPECT_EQ(dataset.location(2), (options_.path / "pos/10_9.txt").string());

  // Named classes: their order decides the numbers, and other folders stay unread.
  folder_.write("imdb/unsup/0_0.txt", "unlabelled");
  expect_error(ExitCode::kData, {"imdb", "3 class folders", "neg, pos, unsup"});
  options_.class_names = {"pos", "neg"};
  EXPECT_THAT(texts(read_raw_dataset(options_)), ElementsAre("ten", "one\r\nline", "zero", "packed"));
  options_.class_names = {"pos", "good"};
  expect_error(ExitCode::kData, {"\"good\"", "neg, pos, unsup"});
}

TEST_F(Readers, FolderPerClassThatCannotBeUsed) {
  options_.path = folder_.path() / "set";
  folder_.write("set/neg/a.txt", "a");
  folder_.write("set/pos/b.txt", "");
  expect_error(ExitCode::kData, {"pos/b.txt", "empty"});
  folder_.write("set/pos/b.txt", "caf\xE9");
  expect_error(ExitCode::kData, {"pos/b.txt", "UTF-8"});
  folder_.write("set/pos/b.txt", "b");
  folder_.write("set/pos/c.html", "c");
  expect_error(ExitCode::kData, {"c.html", ".txt"});
  std::filesystem::remove(folder_.path() / "set/pos/c.html");
  EXPECT_EQ(read_raw_dataset(options_).examples.size(), 2U);
  options_.label_kind = LabelKind::kRegression;
  expect_error(ExitCode::kUsage, {"folder per class"});
  options_.label_kind = LabelKind::kClass;
  std::filesystem::remove(folder_.path() / "set/pos/b.txt");
  expect_error(ExitCode::kData, {"pos", "no examples"});
}

TEST_F(Readers, PathsAndFormats) {
  options_.path = folder_.path() / "nowhere.jsonl";
  expect_error(ExitCode::kUsage, {"nowhere.jsonl"});
  expect_error(ExitCode::kUsage, "data.arrow", "x", {"data.arrow", "format"});
  expect_error(ExitCode::kUsage, "data.parquet.gz", "x", {"data.parquet.gz", "format"});
  options_.path = folder_.path();
  options_.format = DataFormat::kCsv;
  expect_error(ExitCode::kUsage, {"is a folder"});
  options_.format = parse_data_format("tsv");
  EXPECT_THAT(texts(read("reviews.txt", "text\tlabel\nx\t1\n")), ElementsAre("x"));
  options_.format = DataFormat::kFolder;
  expect_error(ExitCode::kUsage, "reviews.txt", "x", {"is a file"});
  EXPECT_EQ(parse_data_format("parquet"), DataFormat::kParquet);
  EXPECT_THROW((void)parse_data_format("arrow"), Error);
}

TEST_F(Readers, TheSampleOfReviews) {
  options_.path = test::test_data("imdb/imdb-small-train.jsonl");
  const RawDataset dataset = read_raw_dataset(options_);
  ASSERT_EQ(dataset.examples.size(), 2000U);
  double positive = 0;
  for (const RawExample& example : dataset.examples) positive += example.labels.at(0);
  EXPECT_EQ(positive, 1000);
  // 2,000 records also where a review contains U+0085.
  EXPECT_EQ(dataset.examples.back().line, 2000);
}

TEST_F(Readers, SourceDigestFollowsTheBytes) {
  options_.path = folder_.write("a.jsonl", "{\"text\": \"a\", \"label\": 1}\n");
  const std::string before = source_digest(options_);
  EXPECT_EQ(read_raw_dataset(options_).source_digest, before);
  folder_.write("a.jsonl", "{\"text\": \"b\", \"label\": 1}\n");
  EXPECT_NE(source_digest(options_), before);

  options_.path = folder_.path() / "set";
  folder_.write("set/0/a.txt", "a");
  folder_.write("set/1/b.txt", "b");
  const std::string folder_before = source_digest(options_);
  EXPECT_EQ(read_raw_dataset(options_).source_digest, folder_before);
  std::filesystem::rename(folder_.path() / "set/1/b.txt", folder_.path() / "set/1/c.txt");
  EXPECT_NE(source_digest(options_), folder_before);
}

}  // namespace
}  // namespace dtrain
