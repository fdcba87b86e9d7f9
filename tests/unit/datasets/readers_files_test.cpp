// Which files a data set is: patterns, lists, folders, and data sets in the Hugging Face cache.
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/datasets/readers_fixture.h"

namespace dtrain {
namespace {

namespace fs = std::filesystem;
using test::gzip;
using test::Readers;
using ::testing::ElementsAre;

std::string line(const std::string& text, const std::string& label = "1") {
  return "{\"text\": \"" + text + "\", \"label\": " + label + "}\n";
}

class ReaderFiles : public Readers {
 protected:
  // A data set of two files in a cache of the Hub, which the environment names.
  void fill_cache() {
    ASSERT_EQ(setenv("HF_HUB_CACHE", (folder_.path() / "h[u]b").c_str(), 1), 0);
    folder_.write("h[u]b/datasets--user--name/refs/main", "abc");
    folder_.write("h[u]b/datasets--user--name/snapshots/old/data/train-0.jsonl", line("old"));
    folder_.write("h[u]b/datasets--user--name/blobs/1", line("one"));
    folder_.write("h[u]b/datasets--user--name/snapshots/abc/data/train-1.jsonl", line("two"));
    fs::create_symlink("../../../blobs/1",
                       folder_.path() / "h[u]b/datasets--user--name/snapshots/abc/data/train-0.jsonl");
  }
  void TearDown() override { unsetenv("HF_HUB_CACHE"); }
};

TEST_F(ReaderFiles, OfAPatternAreSortedByName) {
  folder_.write("d/train-2.jsonl", line("c"));
  folder_.write("d/train-10.jsonl.gz", gzip(line("b")));
  folder_.write("d/train-1.jsonl", line("a0") + line("a1"));
  folder_.write("d/test-1.jsonl", "unread");
  folder_.write("d/sub/train-1.jsonl", "unread");
  options_.path = folder_.path() / "d/train-*";
  const RawDataset dataset = read_raw_dataset(options_);
  EXPECT_THAT(texts(dataset), ElementsAre("a0", "a1", "b", "c"));
  EXPECT_EQ(dataset.location(3), (folder_.path() / "d/train-2.jsonl:1").string());
  EXPECT_EQ(dataset.location(1), (folder_.path() / "d/train-1.jsonl:2").string());
  options_.path = folder_.path() / "*/train-?.jsonl";
  EXPECT_THAT(texts(read_raw_dataset(options_)), ElementsAre("a0", "a1", "c"));
  options_.path = folder_.path() / "d/train-[2-9].*";
  EXPECT_THAT(texts(read_raw_dataset(options_)), ElementsAre("c"));
  // A name that looks like a pattern.
  folder_.write("d/train-[1].jsonl", line("itself"));
  options_.path = folder_.path() / "d/train-[1].jsonl";
  EXPECT_THAT(texts(read_raw_dataset(options_)), ElementsAre("itself"));
}

TEST_F(ReaderFiles, OfAListFollowInItsOrder) {
  options_.path = folder_.write("z.csv", "text,label\nz,0\n");
  options_.more_paths = {folder_.write("m.csv", "label,text\n1,m\n"), folder_.path() / "[ab].csv"};
  folder_.write("a.csv", "text,label\na,1\n");
  folder_.write("b.csv", "text,label\nb,0\n");
  const RawDataset dataset = read_raw_dataset(options_);
  EXPECT_THAT(texts(dataset), ElementsAre("z", "m", "a", "b"));
  EXPECT_THAT(labels(dataset), ElementsAre(0, 1, 1, 0));
}

TEST_F(ReaderFiles, ThatCannotBeOneDataSet) {
  folder_.write("d/a.jsonl", line("a"));
  options_.path = folder_.path() / "d/*.json";
  expect_error(ExitCode::kUsage, {"no file matches the pattern", "d/*.json"});
  options_.path = folder_.path() / "nowhere/*.jsonl";
  expect_error(ExitCode::kUsage, {"no file matches the pattern", "nowhere/*.jsonl"});
  options_.path = folder_.path() / "*";
  expect_error(ExitCode::kUsage, {"matches the folder", "/d"});
  options_.path = folder_.path() / "d/a.jsonl";
  options_.more_paths = {folder_.path() / "d/b.jsonl"};
  expect_error(ExitCode::kUsage, {"no file or folder", "b.jsonl"});
  options_.more_paths = {folder_.path() / "d/*.jsonl"};
  expect_error(ExitCode::kUsage, {"a.jsonl is named twice"});
  options_.more_paths = {folder_.path() / "d"};
  expect_error(ExitCode::kUsage, {"is a folder", "several paths"});
  folder_.write("d/b.csv", "text,label\nb,1\n");
  options_.more_paths = {folder_.path() / "d/b.csv"};
  expect_error(ExitCode::kUsage, {"b.csv has the format csv", "a.jsonl has jsonl"});
  folder_.write("d/c.jsonl", "");
  options_.more_paths = {folder_.path() / "d/c.jsonl"};
  expect_error(ExitCode::kData, {"c.jsonl", "no examples"});
  // Lists of classes in one file and flags in the next have two meanings.
  options_.label_kind = LabelKind::kMultiLabel;
  options_.num_labels = 3;
  folder_.write("d/a.jsonl", line("a", "[0, 1, 1]"));
  folder_.write("d/c.jsonl", line("c", "[2]"));
  expect_error(ExitCode::kData, {"c.jsonl:1: ", "list of classes"});
}

TEST_F(ReaderFiles, AllCountInTheDigest) {
  folder_.write("a.jsonl", line("a"));
  options_.path = folder_.path() / "*.jsonl";
  const std::string one = source_digest(options_);
  options_.path = folder_.path() / "a.jsonl";
  EXPECT_EQ(source_digest(options_), one);

  options_.more_paths = {folder_.write("b.jsonl", line("b"))};
  const std::string two = source_digest(options_);
  EXPECT_EQ(read_raw_dataset(options_).source_digest, two);
  EXPECT_NE(two, one);
  folder_.write("b.jsonl", line("c"));
  EXPECT_NE(source_digest(options_), two);
  folder_.write("b.jsonl", line("b"));
  EXPECT_EQ(source_digest(options_), two);
  std::swap(options_.path, options_.more_paths[0]);
  EXPECT_NE(source_digest(options_), two);
}

TEST_F(ReaderFiles, InAFolderNeedAPattern) {
  options_.path = folder_.path() / "set";
  folder_.write("set/README.md", "about");
  folder_.write("set/data/train-0.parquet", "x");
  expect_error(ExitCode::kUsage, {"set holds data files"}, (folder_.path() / "set/data/*.parquet").string());
  folder_.write("set/all.jsonl.gz", "x");
  expect_error(ExitCode::kUsage, {"set holds data files"}, (folder_.path() / "set/*.jsonl.gz").string());
  options_.path = folder_.path() / "texts";
  folder_.write("texts/a.txt", "x");
  expect_error(ExitCode::kUsage, {"texts holds data files"}, (folder_.path() / "texts/*.txt").string());
}

TEST_F(ReaderFiles, OfTheHubsCache) {
  fill_cache();
  options_.path = "hf://datasets/user/name/data/train-*.jsonl";
  const RawDataset dataset = read_raw_dataset(options_);
  EXPECT_THAT(texts(dataset), ElementsAre("one", "two"));
  EXPECT_EQ(dataset.source_digest, source_digest(options_));
  EXPECT_THAT(dataset.location(0), ::testing::EndsWith("snapshots/abc/data/train-0.jsonl:1"));
  options_.path = "hf://datasets/user/name/data/train-1.jsonl";
  EXPECT_THAT(texts(read_raw_dataset(options_)), ElementsAre("two"));
}

TEST_F(ReaderFiles, OfTheHubThatAreNotInTheCache) {
  fill_cache();
  const std::string command = "hf download user/name --repo-type dataset";
  options_.path = "hf://datasets/user/name/data/test-*.jsonl";
  expect_error(ExitCode::kUsage, {"no file matches", "data/test-*.jsonl"}, command);
  options_.path = "hf://datasets/user/name/test.jsonl";
  expect_error(ExitCode::kUsage, {"no file or folder", "user/name/test.jsonl"}, command);
  options_.path = "hf://datasets/user/name";
  expect_error(ExitCode::kUsage, {"snapshots/abc holds data files"}, "data/*.jsonl");
  options_.path = "hf://datasets/user/other/a.jsonl";
  expect_error(ExitCode::kUsage, {"user/other is not in the Hugging Face cache"},
               "hf download user/other --repo-type dataset");
}

}  // namespace
}  // namespace dtrain
