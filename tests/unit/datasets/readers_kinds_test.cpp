// Sentences of tagged words, pairs of texts, and plain text.
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
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::vector<std::vector<std::string>> words(const RawDataset& dataset) {
  std::vector<std::vector<std::string>> all;
  for (const RawExample& example : dataset.examples) all.push_back(example.words);
  return all;
}

std::vector<std::string> targets(const RawDataset& dataset) {
  std::vector<std::string> all;
  for (const RawExample& example : dataset.examples) all.push_back(example.target);
  return all;
}

class TaggedWords : public Readers {
 protected:
  TaggedWords() {
    options_.record = RecordKind::kWords;
    options_.num_labels = 3;
  }
};

TEST_F(TaggedWords, InJsonLines) {
  const RawDataset numbers = read("a.jsonl",
                                  "{\"tokens\": [\"EU\", \"rejects\"], \"ner_tags\": [2, 0]}\n"
                                  "{\"ner_tags\": [1.0], \"tokens\": [\"caf\\u00e9\"]}\n");
  EXPECT_THAT(words(numbers), ElementsAre(ElementsAre("EU", "rejects"), ElementsAre("caf\xC3\xA9")));
  EXPECT_THAT(numbers.examples[0].labels, ElementsAre(2, 0));
  EXPECT_THAT(numbers.examples[1].labels, ElementsAre(1));
  EXPECT_EQ(numbers.examples[1].line, 2);
  EXPECT_THAT(texts(numbers), ElementsAre("", ""));
  EXPECT_THAT(numbers.class_names, IsEmpty());

  options_.words_column = "words";
  options_.tags_column = "pos";
  options_.class_names = {"N", "V", "7"};
  const RawDataset names = read("b.jsonl", "{\"words\": [\"a\", \"b\"], \"pos\": [\"V\", \"7\"]}\n");
  EXPECT_THAT(labels(names), ElementsAre(1, 2));
  EXPECT_THAT(names.class_names, IsEmpty());
}

TEST_F(TaggedWords, InJsonLinesThatCannotBeUsed) {
  const struct {
    const char* line;
    std::vector<std::string> parts;
  } kCases[] = {
      {R"({"tokens": ["a", "b"], "ner_tags": [1]})", {"2 words and 1 tags"}},
      {R"({"tokens": ["a"], "ner_tags": []})", {"1 words and 0 tags"}},
      {R"({"tokens": [], "ner_tags": []})", {"without words"}},
      {R"({"tokens": ["a"], "tags": [1]})", {"no column \"ner_tags\"", "tokens, tags"}},
      {R"({"ner_tags": [1]})", {"no column \"tokens\""}},
      {R"({"tokens": "a b", "ner_tags": [1]})", {"\"tokens\" is not a list of words"}},
      {R"({"tokens": ["a", 1], "ner_tags": [1, 1]})", {"\"tokens\" holds something else than words"}},
      {R"({"tokens": ["a", null], "ner_tags": [1, 1]})", {"\"tokens\" holds something else than words"}},
      {R"({"tokens": ["a"], "ner_tags": 1})", {"\"ner_tags\" is not a list of tags"}},
      {R"({"tokens": ["a"], "ner_tags": [null]})", {"\"ner_tags\" holds something else"}},
      {R"({"tokens": ["a", "b"], "ner_tags": [1, "O"]})", {"mixes numbers and words"}},
      {R"({"tokens": ["a"], "ner_tags": [3]})", {"label 3 is out of range", "0 to 2"}},
      {R"({"tokens": ["a"], "ner_tags": [-100]})", {"label -100 is out of range"}},
      {R"({"tokens": ["a"], "ner_tags": [0.5]})", {"not a whole number"}},
      {R"({"tokens": ["a"], "ner_tags": ["O"]})", {"tag \"O\" is a name, and the tags before are numbers"}},
      {"{\"tokens\": [\"\\udc00\"], \"ner_tags\": [1]}", {}},
  };
  for (const auto& bad : kCases) {
    std::vector<std::string> parts = bad.parts;
    parts.push_back("bad.jsonl:2: ");
    SCOPED_TRACE(bad.line);
    expect_error(ExitCode::kData, "bad.jsonl",
                 std::string("{\"tokens\": [\"a\"], \"ner_tags\": [1]}\n") + bad.line + "\n", parts);
  }
  expect_error(ExitCode::kData, "names.jsonl",
               "{\"tokens\": [\"a\"], \"ner_tags\": [\"O\"]}\n{\"tokens\": [\"a\"], \"ner_tags\": [1]}\n",
               {"names.jsonl:2: ", "tag 1 is a number, and the tags before are names"});
  options_.class_names = {"O", "B", "I"};
  expect_error(ExitCode::kData, "unknown.jsonl", "{\"tokens\": [\"a\"], \"ner_tags\": [\"X\"]}\n",
               {"unknown.jsonl:1: ", "\"X\" is none of data.labels: O, B, I"});
}

// Numbers of names are those of the sorted list with "O" first, whatever came first and in which file.
TEST_F(TaggedWords, NamesAreCollectedWhereNoneAreGiven) {
  folder_.write("1.jsonl", "{\"tokens\": [\"a\", \"b\"], \"ner_tags\": [\"I-x\", \"O\"]}\n");
  folder_.write("2.jsonl", "{\"tokens\": [\"c\", \"d\"], \"ner_tags\": [\"B-x\", \"I-x\"]}\n");
  options_.path = folder_.path() / "?.jsonl";
  const RawDataset dataset = read_raw_dataset(options_);
  EXPECT_THAT(dataset.class_names, ElementsAre("O", "B-x", "I-x"));
  EXPECT_THAT(labels(dataset), ElementsAre(2, 0, 1, 2));
  // More names than num_labels, and none of them "O".
  options_.num_labels = 2;
  const RawDataset other = read("c.conll", "a N\nb V\nc ADJ\n");
  EXPECT_THAT(other.class_names, ElementsAre("ADJ", "N", "V"));
  EXPECT_THAT(labels(other), ElementsAre(1, 2, 0));
}

TEST_F(TaggedWords, WithoutTags) {
  options_.has_labels = false;
  const RawDataset lines = read("a.jsonl", "{\"tokens\": [\"a\", \"b\"]}\n{\"tokens\": [\"c\"], \"ner_tags\": 7}\n");
  EXPECT_THAT(words(lines), ElementsAre(ElementsAre("a", "b"), ElementsAre("c")));
  EXPECT_THAT(lines.examples[0].labels, ElementsAre(0, 0));
  const RawDataset columns = read("a.conll", "a\nb\n\nc O\n");
  EXPECT_THAT(words(columns), ElementsAre(ElementsAre("a", "b"), ElementsAre("c")));
  EXPECT_THAT(labels(columns), Each(0));
  EXPECT_THAT(columns.class_names, IsEmpty());
}

TEST_F(TaggedWords, InColumns) {
  const std::string bytes =
      "\xEF\xBB\xBF-DOCSTART- -X- -X- O\r\n\r\n\n"
      "EU NNP B-NP B-ORG\r\n"
      "rejects   VBZ B-VP O\n"
      " \t\n"
      "New York\tB-LOC\t\n"
      "\xC2\xA0\tO\n\n\n"
      "-DOCSTART-\n"
      "last I-ORG";
  const RawDataset dataset = read("a.conll", bytes);
  EXPECT_THAT(words(dataset),
              ElementsAre(ElementsAre("EU", "rejects"), ElementsAre("New York", "\xC2\xA0"), ElementsAre("last")));
  EXPECT_THAT(dataset.class_names, ElementsAre("O", "B-LOC", "B-ORG", "I-ORG"));
  EXPECT_THAT(labels(dataset), ElementsAre(2, 0, 1, 0, 3));
  EXPECT_EQ(dataset.location(0), options_.path.string() + ":4");
  EXPECT_EQ(dataset.location(1), options_.path.string() + ":7");
  EXPECT_EQ(dataset.location(2), options_.path.string() + ":12");
  EXPECT_THAT(labels(read("a.bio.gz", gzip(bytes))), ElementsAre(2, 0, 1, 0, 3));
  options_.class_names = {"B-LOC", "O", "B-ORG", "I-ORG"};
  options_.num_labels = 4;
  const RawDataset named = read("a.iob2", bytes);
  EXPECT_THAT(labels(named), ElementsAre(2, 1, 0, 1, 3));
  EXPECT_THAT(named.class_names, IsEmpty());
}

TEST_F(TaggedWords, InColumnsThatCannotBeUsed) {
  expect_error(ExitCode::kData, "a.conll", "a O\nb\n", {"a.conll:2: ", "no tag after the word \"b\""});
  expect_error(ExitCode::kData, "b.conll", "a\tO\n\tO\n", {"b.conll:2: ", "no word"});
  expect_error(ExitCode::kData, "c.conll", "a\tO\ncaf\xE9\tO\n", {"c.conll:2: ", "UTF-8"});
  expect_error(ExitCode::kData, "d.conll", "-DOCSTART- O\n\n", {"d.conll", "no examples"});
  options_.class_names = {"O", "B", "I"};
  expect_error(ExitCode::kData, "e.conll", "a O\nb B\nc E\n", {"e.conll:3: ", "\"E\" is none of data.labels"});
}

TEST_F(TaggedWords, NeedAFormatWithLists) {
  for (const char* name : {"a.csv", "a.tsv.gz", "a.txt"}) {
    expect_error(ExitCode::kUsage, name, "", {name, "cannot hold lists of words"});
  }
  folder_.write("set/0/a.txt", "a");
  folder_.write("set/1/a.txt", "a");
  options_.num_labels = 2;
  options_.path = folder_.path() / "set";
  expect_error(ExitCode::kUsage, {"set", "folder cannot hold lists of words"});
}

TEST_F(TaggedWords, TheSampleOfWnut17) {
  options_.path = test::test_data("wnut17/wnut17-dev.jsonl.gz");
  options_.num_labels = 13;
  const RawDataset dataset = read_raw_dataset(options_);
  EXPECT_EQ(dataset.examples.size(), 1009U);
  EXPECT_EQ(labels(dataset).size(), 15733U);
}

class Pairs : public Readers {
 protected:
  Pairs() {
    options_.record = RecordKind::kPair;
    options_.source_column = "en";
    options_.target_column = "de";
  }
};

TEST_F(Pairs, InColumnsOfTheirOwn) {
  const RawDataset lines =
      read("a.jsonl", "{\"de\": \"Haus\", \"en\": \"house\", \"fr\": 1}\n{\"en\": \"\", \"de\": \"x\"}\n");
  EXPECT_THAT(texts(lines), ElementsAre("house", ""));
  EXPECT_THAT(targets(lines), ElementsAre("Haus", "x"));
  EXPECT_THAT(labels(lines), IsEmpty());
  const RawDataset fields = read("a.csv", "id,de,en\n1,\"ein\nHaus\",a house\n");
  EXPECT_THAT(texts(fields), ElementsAre("a house"));
  EXPECT_THAT(targets(fields), ElementsAre("ein\nHaus"));
}

TEST_F(Pairs, InsideAnObject) {
  options_.source_column = "translation.en";
  options_.target_column = "translation.de";
  const RawDataset dataset = read("a.jsonl", "{\"id\": 1, \"translation\": {\"en\": \"house\", \"de\": \"Haus\"}}\n");
  EXPECT_THAT(texts(dataset), ElementsAre("house"));
  EXPECT_THAT(targets(dataset), ElementsAre("Haus"));
  // A key with a dot, and objects in objects.
  options_.source_column = "a.b";
  options_.target_column = "c.d.e";
  const RawDataset keys = read("b.jsonl", "{\"a.b\": \"1\", \"a\": {\"b\": \"2\"}, \"c\": {\"d\": {\"e\": \"3\"}}}\n");
  EXPECT_THAT(texts(keys), ElementsAre("1"));
  EXPECT_THAT(targets(keys), ElementsAre("3"));
  expect_error(ExitCode::kData, "c.jsonl", "{\"a.b\": \"1\", \"c\": {\"x\": 1, \"y\": 2}}\n",
               {"c.jsonl:1: ", "no column \"c.d.e\"", "there are: c.x, c.y"});
  expect_error(ExitCode::kData, "d.jsonl", "{\"a.b\": \"1\", \"c\": 5}\n",
               {"no column \"c.d.e\"", "there are: a.b, c"});
  expect_error(ExitCode::kData, "e.jsonl", "{\"a\": {\"b\": \"1\", \"b\": \"2\"}}\n",
               {"e.jsonl:1: ", "\"b\" stands twice"});
}

TEST_F(Pairs, ThatCannotBeUsed) {
  expect_error(ExitCode::kData, "a.jsonl", "{\"en\": \"house\"}\n", {"a.jsonl:1: ", "no column \"de\"", "en"});
  expect_error(ExitCode::kData, "b.jsonl", "{\"en\": \"house\", \"de\": null}\n",
               {"b.jsonl:1: ", "\"de\" is not a text"});
  expect_error(ExitCode::kData, "c.csv", "en,fr\na,b\n", {"c.csv:1: ", "no column \"de\""});
  expect_error(ExitCode::kData, "d.csv", "en,de\na,\nb,\n", {"d.csv", "all 2 targets are empty"});
  expect_error(ExitCode::kData, "e.csv", "en,de\n,a\n", {"e.csv", "all 1 texts are empty"});
  for (const char* name : {"a.txt", "a.conll"}) {
    expect_error(ExitCode::kUsage, name, "a b\n", {name, "cannot hold pairs"});
  }
  options_.target_column = "en";
  expect_error(ExitCode::kUsage, {"same column \"en\""}, "data.source");
  options_.target_column = "";
  expect_error(ExitCode::kUsage, {"names of their columns"}, "data.target");
}

TEST_F(Pairs, WithoutTargets) {
  options_.has_labels = false;
  options_.target_column = "";
  const RawDataset dataset = read("a.jsonl", "{\"en\": \"house\"}\n");
  EXPECT_THAT(texts(dataset), ElementsAre("house"));
  EXPECT_THAT(targets(dataset), ElementsAre(""));
}

TEST_F(Readers, PlainTextIsALinePerRecord) {
  options_.has_labels = false;
  const std::string bytes = "\xEF\xBB\xBFone\r\n\n\r\n two\xC2\x85 \nlast";
  const RawDataset dataset = read("a.txt", bytes);
  EXPECT_THAT(texts(dataset), ElementsAre("one", "", "", " two\xC2\x85 ", "last"));
  EXPECT_EQ(dataset.location(3), options_.path.string() + ":4");
  EXPECT_THAT(texts(read("a.txt.gz", gzip(bytes + "\n"))), ElementsAre("one", "", "", " two\xC2\x85 ", "last"));
  options_.format = DataFormat::kText;
  EXPECT_THAT(texts(read("a.log", "x,y\n\n")), ElementsAre("x,y", ""));
}

TEST_F(Readers, PlainTextThatCannotBeUsed) {
  expect_error(ExitCode::kUsage, "a.txt", "one\n", {"a.txt", "text has no labels"});
  options_.has_labels = false;
  expect_error(ExitCode::kData, "b.txt", "one\ntw\xE9\n", {"b.txt:2: ", "UTF-8"});
  expect_error(ExitCode::kData, "c.txt", "\n\n", {"c.txt", "all 2 texts are empty"});
  expect_error(ExitCode::kData, "d.txt", "", {"d.txt", "no examples"});
  expect_error(ExitCode::kUsage, "e.conll", "a O\n", {"e.conll", "conll holds words"});
}

TEST_F(Readers, TheSampleOfWikiText) {
  options_.has_labels = false;
  options_.path = test::test_data("wikitext-2/wikitext-2-valid.txt.gz");
  const RawDataset dataset = read_raw_dataset(options_);
  ASSERT_EQ(dataset.examples.size(), 3760U);
  EXPECT_EQ(dataset.examples[1].text, " = Homarus gammarus = ");
}

}  // namespace
}  // namespace dtrain
