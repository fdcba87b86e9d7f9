// From a file to a tokenised data set by way of the store: equality, damage, change, concurrency, errors.
#include "datasets/token_data.h"

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/error.h"
#include "core/file.h"
#include "datasets/numpy_permutation.h"
#include "datasets/token_store.h"
#include "tests/support/files.h"
#include "tests/support/temp_folder.h"
#include "tests/unit/datasets/byte_tokenizer.h"

namespace dtrain {
namespace {

namespace fs = std::filesystem;
using test::ByteTokenizer;
using ::testing::HasSubstr;

class CountingTokenizer : public ByteTokenizer {
 public:
  void encode(std::string_view text, const EncodeOptions& options, std::vector<std::int32_t>& ids) const override {
    ++calls;
    ByteTokenizer::encode(text, options, ids);
  }
  mutable std::atomic<int> calls{0};
};

std::string text_of(std::int64_t i) {
  return "review " + std::to_string(i * i) + std::string(static_cast<std::size_t>(i % 7), '!');
}

std::string json_lines(std::int64_t count) {
  std::string lines;
  for (std::int64_t i = 0; i < count; ++i) {
    lines += "{\"text\": \"" + text_of(i) + "\", \"label\": " + std::to_string(i % 2) + "}\n";
  }
  return lines;
}

class TokenData : public ::testing::Test {
 protected:
  test::TempFolder folder_;
  TokenDataOptions options_;

  void SetUp() override {
    options_.cache_dir = folder_.path() / "cache" / "tokens";
    write_source(json_lines(300));
  }
  void write_source(std::string_view bytes) { options_.reader.path = folder_.write("reviews.jsonl", bytes); }

  std::vector<fs::path> files(std::string_view ending) {
    std::vector<fs::path> found;
    if (!fs::exists(options_.cache_dir)) return found;
    for (const auto& entry : fs::directory_iterator(options_.cache_dir)) {
      if (entry.path().string().ends_with(ending)) found.push_back(entry.path());
    }
    return found;
  }
  // Loads, and keeps what was logged in log_.
  std::shared_ptr<const Dataset> load(const Tokenizer& tokenizer, bool may_build = true,
                                      const TokenProgress& progress = {}) {
    testing::internal::CaptureStderr();
    std::shared_ptr<const Dataset> dataset;
    try {
      dataset = load_token_data(options_, tokenizer, may_build, progress);
    } catch (const std::exception&) {
      log_ = testing::internal::GetCapturedStderr();
      throw;
    }
    log_ = testing::internal::GetCapturedStderr();
    return dataset;
  }
  void expect_error(ExitCode code, const Tokenizer& tokenizer, bool may_build, const std::vector<std::string>& parts) {
    try {
      (void)load(tokenizer, may_build);
      ADD_FAILURE() << "no error";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), code) << error.what();
      for (const std::string& part : parts) EXPECT_THAT(error.what(), HasSubstr(part));
    }
    EXPECT_TRUE(files(".tmp").empty());
  }

  std::string log_;
};

std::vector<std::int32_t> ids_of(const Dataset& dataset, std::int64_t index) {
  const auto ids = dataset.get(index).ids;
  return {ids.begin(), ids.end()};
}

TEST_F(TokenData, HoldsWhatTheTokenizerGives) {
  const ByteTokenizer tokenizer;
  options_.max_length = 12;
  for (const int threads : {1, 4}) {
    options_.threads = threads;
    options_.cache_dir = folder_.path() / ("cache" + std::to_string(threads));
    const auto built = load(tokenizer);
    EXPECT_EQ(log_, "");
    const auto opened = load(tokenizer, /*may_build=*/false);
    for (const Dataset* dataset : {built.get(), opened.get()}) {
      ASSERT_EQ(dataset->size(), 300);
      for (std::int64_t i = 0; i < 300; ++i) {
        EXPECT_EQ(ids_of(*dataset, i), tokenizer.Tokenizer::encode(text_of(i), {.max_length = 12}));
        ASSERT_EQ(dataset->get(i).labels.size(), 1U);
        EXPECT_EQ(dataset->get(i).labels[0], static_cast<double>(i % 2));
      }
    }
    EXPECT_EQ(built->digest(), opened->digest());
    EXPECT_THROW((void)built->get(300), Error);
    EXPECT_THROW((void)built->get(-1), Error);
    ASSERT_EQ(files(".h5").size(), 1U);
    EXPECT_THAT(files(".h5")[0].filename().string(), testing::StartsWith("reviews-"));
    EXPECT_TRUE(files(".tmp").empty());
  }
}

TEST_F(TokenData, IsTokenisedOnce) {
  const CountingTokenizer tokenizer;
  (void)load(tokenizer);
  EXPECT_EQ(tokenizer.calls, 300);
  bool told = false;
  (void)load(tokenizer, true, [&](std::int64_t, std::int64_t) { told = true; });
  EXPECT_EQ(tokenizer.calls, 300);
  EXPECT_FALSE(told);
  // The same bytes under another name are the same text, and have the same digest.
  const auto first = load(tokenizer);
  options_.reader.path = folder_.write("copy/reviews.jsonl", json_lines(300));
  EXPECT_EQ(load(tokenizer)->digest(), first->digest());
  EXPECT_EQ(tokenizer.calls, 300);
}

TEST_F(TokenData, SamplesAreThoseOfTheDatasetsLibrary) {
  options_.samples = 40;
  options_.shuffle_seed = 7;
  const auto dataset = load(ByteTokenizer());
  ASSERT_EQ(dataset->size(), 40);
  const auto order = numpy_permutation(300, 7);
  for (std::int64_t i = 0; i < 40; ++i) {
    const std::int64_t chosen = order[static_cast<std::size_t>(i)];
    EXPECT_EQ(ids_of(*dataset, i), ByteTokenizer().Tokenizer::encode(text_of(chosen)));
    EXPECT_EQ(dataset->get(i).labels[0], static_cast<double>(chosen % 2));
  }
  options_.samples = 301;
  expect_error(ExitCode::kData, ByteTokenizer(), true, {"reviews.jsonl", "301", "300"});
}

TEST_F(TokenData, SeveralLabels) {
  write_source("{\"text\": \"a\", \"label\": [1, 0, 1]}\n{\"text\": \"b\", \"label\": [0, 0, 1]}\n");
  options_.reader.label_kind = LabelKind::kMultiLabel;
  options_.reader.num_labels = 3;
  (void)load(ByteTokenizer());
  const auto dataset = load(ByteTokenizer(), /*may_build=*/false);
  EXPECT_THAT(dataset->get(0).labels, testing::ElementsAre(1, 0, 1));
  EXPECT_THAT(dataset->get(1).labels, testing::ElementsAre(0, 0, 1));
}

TEST_F(TokenData, EachConfigurationHasItsOwnStore) {
  const auto load_changed = [&](auto change) {
    const TokenDataOptions before = options_;
    change(options_);
    (void)load(ByteTokenizer());
    EXPECT_EQ(log_, "");
    options_ = before;
  };
  load_changed([](TokenDataOptions&) {});
  load_changed([](TokenDataOptions& options) { options.max_length = 5; });
  load_changed([](TokenDataOptions& options) { options.samples = 300; });
  load_changed([](TokenDataOptions& options) { options.samples = 300, options.shuffle_seed = 1; });
  load_changed([](TokenDataOptions& options) { options.reader.num_labels = 3; });
  load_changed([](TokenDataOptions& options) { options.reader.class_names = {"a", "b"}; });
  load_changed([](TokenDataOptions& options) { options.reader.invalid_utf8 = InvalidUtf8::kReplace; });
  load_changed([](TokenDataOptions& options) { options.threads = 3; });  // this changes nothing
  EXPECT_EQ(files(".h5").size(), 7U);
  (void)load(ByteTokenizer(true, "other"));
  EXPECT_EQ(files(".h5").size(), 8U);
  write_source(json_lines(299));
  EXPECT_EQ(load(ByteTokenizer())->size(), 299);
  EXPECT_EQ(files(".h5").size(), 9U);
}

TEST_F(TokenData, AStoreOfAnotherOriginIsBuiltAnew) {
  (void)load(ByteTokenizer(true, "one"));
  const fs::path one = files(".h5").at(0);
  fs::rename(one, folder_.path() / "one.h5");
  const auto expected = load(ByteTokenizer(true, "two"));
  const fs::path two = files(".h5").at(0);
  ASSERT_NE(one, two);
  fs::rename(folder_.path() / "one.h5", two);
  const auto rebuilt = load(ByteTokenizer(true, "two"));
  EXPECT_THAT(log_, HasSubstr("another tokenizer"));
  EXPECT_THAT(log_, HasSubstr(two.filename().string()));
  EXPECT_EQ(rebuilt->digest(), expected->digest());
  (void)load(ByteTokenizer(true, "two"));
  EXPECT_EQ(log_, "");
}

TEST_F(TokenData, ADamagedStoreIsBuiltAnewWithOneWarning) {
  const auto expected = load(ByteTokenizer());
  const fs::path store = files(".h5").at(0);
  const std::string good = read_file(store);
  std::vector<std::string> damaged = {"",
                                      "rubbish",
                                      good.substr(0, good.size() / 2),
                                      good.substr(0, good.size() - 1),
                                      good + "x",
                                      std::string(good.size(), '\0')};
  damaged.push_back(good);
  damaged.back()[good.size() - 9] ^= 1;
  for (const std::string& bytes : damaged) {
    test::write_file(store, bytes);
    expect_error(ExitCode::kData, ByteTokenizer(), /*may_build=*/false, {store.filename().string()});
    const auto rebuilt = load(ByteTokenizer());
    EXPECT_EQ(rebuilt->digest(), expected->digest());
    EXPECT_THAT(log_, HasSubstr("is built anew"));
    EXPECT_EQ(std::count(log_.begin(), log_.end(), '\n'), 1) << log_;
    (void)load(ByteTokenizer(), /*may_build=*/false);
    EXPECT_EQ(log_, "");
  }
}

TEST_F(TokenData, EveryTruncationAndEveryFlippedBitIsFound) {
  const TokenTable table{.ids = {5, 6, 7, 8}, .offsets = {0, 1, 4}, .labels = {0, 1}, .label_offsets = {0, 1, 2}};
  const TokenOrigin origin{.source = "text", .tokenizer = "tokens", .options = "{}"};
  const fs::path path = folder_.path() / "small.h5";
  write_token_store(path, origin, table);
  EXPECT_EQ(ids_of(*open_token_store(path, origin), 1), (std::vector<std::int32_t>{6, 7, 8}));
  const std::string good = read_file(path);
  const auto expect_damaged = [&](const std::string& bytes, std::size_t where) {
    test::write_file(path, bytes);
    try {
      (void)open_token_store(path, origin);
      ADD_FAILURE() << "opened with damage at " << where;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kData);
    }
  };
  for (std::size_t size = 0; size < good.size(); ++size) expect_damaged(good.substr(0, size), size);
  for (std::size_t bit = 0; bit < good.size() * 8; bit += 3) {
    std::string flipped = good;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << (bit % 8)));
    expect_damaged(flipped, bit);
  }
}

TEST_F(TokenData, AStoreWhoseContentContradictsItselfIsRefused) {
  const TokenOrigin origin{.source = "text", .tokenizer = "tokens", .options = "{}"};
  const fs::path path = folder_.path() / "small.h5";
  const TokenTable tables[] = {
      {.ids = {5, 6}, .offsets = {0, 1, 3}, .labels = {0, 1}, .label_offsets = {0, 1, 2}},  // beyond the ids
      {.ids = {5, 6}, .offsets = {0, 2, 1}, .labels = {0, 1}, .label_offsets = {0, 1, 2}},  // falling
      {.ids = {5, 6}, .offsets = {1, 1, 2}, .labels = {0, 1}, .label_offsets = {0, 1, 2}},  // not from 0
      {.ids = {}, .offsets = {0}, .labels = {}, .label_offsets = {0}},                      // no example
  };
  for (const TokenTable& table : tables) {
    write_token_store(path, origin, table);
    EXPECT_THROW((void)open_token_store(path, origin), Error);
  }
}

// The rest of a writer that was killed is ignored, and cleared away by the next writer; a living writer's file stays.
TEST_F(TokenData, LeftoversOfKilledWriters) {
  (void)load(ByteTokenizer());
  const fs::path store = files(".h5").at(0);
  fs::remove(store);
  const pid_t child = ::fork();
  if (child == 0) ::_exit(0);
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);
  char host[256] = {};
  ::gethostname(host, sizeof host - 1);
  const auto leftover = [&](const std::string& from, pid_t pid) {
    const fs::path path =
        options_.cache_dir / ("." + store.filename().string() + "." + from + "." + std::to_string(pid) + ".tmp");
    write_file_synced(path, "half a store");
    return path;
  };
  const fs::path dead = leftover(host, child);
  const fs::path living = leftover(host, ::getppid());
  const fs::path elsewhere = leftover("another-host", child);
  EXPECT_EQ(load(ByteTokenizer())->size(), 300);
  EXPECT_EQ(log_, "");
  EXPECT_FALSE(fs::exists(dead));
  EXPECT_TRUE(fs::exists(living));
  EXPECT_TRUE(fs::exists(elsewhere));
}

TEST_F(TokenData, TwoBuildersDoTheWorkOnce) {
  const CountingTokenizer tokenizer;
  std::vector<std::string> digests(4);
  std::vector<std::thread> builders;
  for (std::string& digest : digests) {
    builders.emplace_back([&] { digest = load_token_data(options_, tokenizer, true)->digest(); });
  }
  for (std::thread& builder : builders) builder.join();
  EXPECT_EQ(tokenizer.calls, 300);
  for (const std::string& digest : digests) EXPECT_EQ(digest, digests[0]);
}

TEST_F(TokenData, Progress) {
  const auto caller = std::this_thread::get_id();
  std::int64_t last = 0;
  options_.threads = 2;
  (void)load(ByteTokenizer(), true, [&](std::int64_t done, std::int64_t total) {
    EXPECT_EQ(std::this_thread::get_id(), caller);
    EXPECT_EQ(total, 300);
    EXPECT_GE(done, last);
    last = done;
  });
  EXPECT_EQ(last, 300);
}

TEST_F(TokenData, AnExceptionOfTheProgressEndsTheBuild) {
  EXPECT_THROW((void)load(ByteTokenizer(), true, [](std::int64_t, std::int64_t) { throw std::runtime_error("stop"); }),
               std::runtime_error);
  EXPECT_TRUE(files(".h5").empty());
  EXPECT_EQ(load(ByteTokenizer())->size(), 300);
}

TEST_F(TokenData, ATextWithoutTokensIsNamed) {
  // Hundreds of them on several threads: the first one in the file is named.
  std::string lines = json_lines(100);
  for (int i = 0; i < 400; ++i) lines += "{\"text\": \"\", \"label\": 0}\n";
  write_source(lines);
  options_.threads = 4;
  for (int i = 0; i < 5; ++i)
    expect_error(ExitCode::kData, ByteTokenizer(/*has_special_ids=*/false), true, {"reviews.jsonl:101: ", "no token"});
  // With special ids an empty text is an example like any other.
  EXPECT_EQ(load(ByteTokenizer())->size(), 500);
}

TEST_F(TokenData, Errors) {
  expect_error(ExitCode::kData, ByteTokenizer(), /*may_build=*/false, {"reviews-", "missing"});
  write_source("{\"text\": \"a\", \"label\": 7}\n");
  expect_error(ExitCode::kData, ByteTokenizer(), true, {"reviews.jsonl:1: ", "label 7"});
  options_.reader.path = folder_.path() / "nowhere.jsonl";
  expect_error(ExitCode::kUsage, ByteTokenizer(), true, {"nowhere.jsonl"});
  write_source(json_lines(3));
  options_.cache_dir = folder_.write("file", "") / "tokens";
  expect_error(ExitCode::kIo, ByteTokenizer(), true, {"data.cache_dir"});
}

TEST_F(TokenData, AFullDiskLeavesNothingBehind) {
  // The kernel refuses to let a file of this process grow over 2,000 bytes, as a full disk would.
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit old_limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &old_limit), 0);
  const rlimit limit{2000, old_limit.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &limit), 0);
  std::string message;
  ExitCode code = ExitCode::kDone;
  try {
    (void)load_token_data(options_, ByteTokenizer(), true);
  } catch (const Error& error) {
    message = error.what();
    code = error.code();
  }
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &old_limit), 0);
  (void)std::signal(SIGXFSZ, old_handler);
  EXPECT_EQ(code, ExitCode::kIo) << message;
  EXPECT_THAT(message, HasSubstr("token store"));
  EXPECT_TRUE(files(".tmp").empty());
  EXPECT_TRUE(files(".h5").empty());
  EXPECT_EQ(load(ByteTokenizer())->size(), 300);
}

}  // namespace
}  // namespace dtrain
