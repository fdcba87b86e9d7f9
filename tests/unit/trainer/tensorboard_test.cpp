// The event files byte by byte. tests/integration/test_report.py reads whole ones with TensorBoard itself.
#include <algorithm>
#include <csignal>
#include <numeric>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include "core/file.h"
#include "core/log.h"
#include "tests/support/temp_folder.h"
#include "trainer/callbacks/tensorboard_events.h"
#include "trainer/callbacks/tensorboard_writer.h"

namespace dtrain {
namespace {

namespace fs = std::filesystem;
using namespace std::string_literals;

TEST(TensorboardEvents, Crc32cOfRfc3720) {
  // Appendix B.4; the RFC prints the bytes in the order in which they are sent.
  std::string rising(32, '\0');
  std::iota(rising.begin(), rising.end(), '\0');
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8A9136AA);
  EXPECT_EQ(crc32c(std::string(32, '\xFF')), 0x62A8AB43);
  EXPECT_EQ(crc32c(rising), 0x46DD794E);
  EXPECT_EQ(crc32c(std::string(rising.rbegin(), rising.rend())), 0x113FDB5C);
  EXPECT_EQ(crc32c("123456789"), 0xE3069283);
  EXPECT_EQ(crc32c(""), 0U);
}

TEST(TensorboardEvents, AreTheBytesOfGooglesEncoder) {
  // Printed by SerializeToString of tensorboard's own messages, built by torch.utils.tensorboard.summary.
  EXPECT_EQ(version_event(1.5), "\t\0\0\0\0\0\0\xF8?\x1A\rbrain.Event:2"s);
  EXPECT_EQ(scalar_event(1.5, 3, "a", 0.5),
            "\t\0\0\0\0\0\0\xF8?\x10\x03*\n\n\x08\n\x01"
            "a\x15\0\0\0?"s);
  EXPECT_EQ(restart_event(1.5, 3), "\t\0\0\0\0\0\0\xF8?\x10\x03:\x02\x08\x01"s);
  EXPECT_EQ(text_event(1.5, 0, "args", "hi"),
            "\t\0\0\0\0\0\0\xF8?*-\n+\n\x11"
            "args/text_summaryB\x0C\x08\x07\x12\x04\x12\x02\x08\x01"
            "B\x02hiJ\x08\n\x06\n\x04text"s);
  // Longer than one byte of length can say, and a step beyond 32 bits.
  const std::string event = scalar_event(0, std::int64_t{1} << 40, std::string(300, 'x'), 1);
  EXPECT_EQ(event.size(), 9 + 1 + 6 + 1 + 2 + 1 + 2 + 1 + 2 + 300 + 5);
}

TEST(TensorboardEvents, TagsAreTheTrainers) {
  EXPECT_EQ(tensorboard_tag("eval_loss"), "eval/loss");
  EXPECT_EQ(tensorboard_tag("test_f1"), "test/f1");
  EXPECT_EQ(tensorboard_tag("loss"), "train/loss");
  EXPECT_EQ(tensorboard_tag("train_runtime"), "train/train_runtime");
  EXPECT_EQ(tensorboard_tag("evaluated"), "train/evaluated");
}

class Tensorboard : public testing::Test {
 protected:
  // The event files below `folder`, sorted by name.
  static std::vector<fs::path> files(const fs::path& folder) {
    std::vector<fs::path> found;
    for (const auto& entry : fs::recursive_directory_iterator(folder)) {
      if (entry.is_regular_file()) found.push_back(entry.path());
    }
    std::sort(found.begin(), found.end());
    return found;
  }
  test::TempFolder folder_;
  TensorboardOptions options_{
      .runs = folder_.path() / "runs", .folder = {}, .settings = "a = 1\n", .model_config = "{}"};
  TrainerState state_;
};

TEST_F(Tensorboard, EachRecordReachesTheFileAtOnce) {
  TensorboardWriter writer(options_);
  writer.on_train_begin(state_, state_.control);
  const std::vector<fs::path> found = files(options_.runs);
  ASSERT_EQ(found.size(), 1U);
  EXPECT_THAT(found[0].filename().string(),
              testing::MatchesRegex("events\\.out\\.tfevents\\.[0-9]{10}\\..+\\.[0-9]+\\.0"));
  EXPECT_THAT(read_file(found[0]), testing::HasSubstr("```toml\na = 1\n```"));
  state_.global_step = 2;
  writer.on_log(state_, state_.control, {{"eval_loss", 0.5}, {"note", "words"}, {"step", 2}});
  const std::string text = read_file(found[0]);
  EXPECT_THAT(text, testing::HasSubstr("eval/loss"));
  EXPECT_THAT(text, testing::HasSubstr("train/note/text_summary"));
  EXPECT_THAT(text, testing::Not(testing::HasSubstr("train/step")));
}

TEST_F(Tensorboard, AResumedRunGoesOnInTheFolderWithALaterName) {
  // The clock of the machine before was ahead.
  const fs::path before = options_.runs / "Jan01_00-00-00_a";
  fs::create_directories(before);
  write_file_synced(before / "events.out.tfevents.4000000000.a.1.0", "");
  fs::create_directories(options_.runs / "Jan02_00-00-00_a");
  write_file_synced(options_.runs / "Jan02_00-00-00_a" / "events.out.tfevents.1700000000.a.1.0", "");
  state_.global_step = 7;
  TensorboardWriter writer(options_);
  writer.on_train_begin(state_, state_.control);
  ASSERT_EQ(files(before).size(), 2U);
  EXPECT_THAT(files(before)[1].filename().string(), testing::StartsWith("events.out.tfevents.4000000001."));
}

TEST_F(Tensorboard, OtherRanksWriteNothing) {
  state_.is_world_process_zero = false;
  TensorboardWriter writer(options_);
  writer.on_train_begin(state_, state_.control);
  writer.on_log(state_, state_.control, {{"loss", 1}});
  EXPECT_FALSE(fs::exists(options_.runs));
}

TEST_F(Tensorboard, WhatCannotBeWrittenIsOneWarning) {
  write_file_synced(options_.runs, "a file where the folder should be");
  TensorboardWriter writer(options_);
  testing::internal::CaptureStderr();
  log::set_up(0, 1, log::Level::kInfo, log::Level::kWarning);
  writer.on_train_begin(state_, state_.control);
  for (int i = 0; i < 3; ++i) writer.on_log(state_, state_.control, {{"loss", 1}});
  writer.on_train_end(state_, state_.control);
  const std::string text = testing::internal::GetCapturedStderr();
  EXPECT_THAT(text, testing::HasSubstr("training goes on without TensorBoard files"));
  EXPECT_EQ(text.find("training goes on"), text.rfind("training goes on"));
}

TEST_F(Tensorboard, ADiskThatFillsIsOneWarning) {
  TensorboardWriter writer(options_);
  writer.on_train_begin(state_, state_.control);
  const fs::path file = files(options_.runs).at(0);
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  // Room for one record and a half; what the kernel refuses then, a full disk refuses too.
  rlimit small = before;
  small.rlim_cur = fs::file_size(file) + 80;
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  testing::internal::CaptureStderr();
  log::set_up(0, 1, log::Level::kInfo, log::Level::kWarning);
  for (int i = 0; i < 4; ++i) EXPECT_NO_THROW(writer.on_log(state_, state_.control, {{"loss", 1}}));
  const std::string text = testing::internal::GetCapturedStderr();
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(fs::file_size(file), small.rlim_cur);
  EXPECT_THAT(text, testing::HasSubstr("cannot write " + file.string()));
  EXPECT_EQ(text.find("training goes on"), text.rfind("training goes on"));
}

}  // namespace
}  // namespace dtrain
