// One run per folder, and nothing of anyone else's is ever deleted.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <functional>

#include "core/error.h"
#include "core/file.h"
#include "tests/support/temp_folder.h"
#include "trainer/checkpoint/checkpoint_store.h"
#include "trainer/checkpoint/run_json.h"
#include "trainer/checkpoint/run_lock.h"

namespace dtrain {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

std::string usage_error_of(const std::function<void()>& function) {
  try {
    function();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kUsage);
    return std::string(error.what()) + " | " + error.hint();
  }
  return "no error";
}

void publish(const fs::path& output_dir, std::int64_t step) {
  CheckpointStore(output_dir)
      .publish(
          {.step = step, .bytes = 0, .config_digest = "", .facts = Json::object(), .write = [](const fs::path& stage) {
             write_file_synced(stage / "model.safetensors", "w");
           }});
}

TEST(RunLock, ASecondRunIsToldWhoHoldsTheFolder) {
  const test::TempFolder folder;
  const fs::path run = folder.path() / "run";
  {
    const RunLock lock(run);
    const std::string error = usage_error_of([&] { const RunLock second(run); });
    EXPECT_THAT(error, HasSubstr("is in use by process " + std::to_string(::getpid()) + " on "));
    EXPECT_TRUE(fs::exists(run / ".lock"));
  }
  EXPECT_FALSE(fs::exists(run));  // it made the folder, and left nothing in it
  {
    const RunLock lock(run);
    write_file_synced(run / "file", "x");
  }
  EXPECT_TRUE(fs::exists(run / "file"));
  EXPECT_FALSE(fs::exists(run / ".lock"));
}

TEST(RunLock, AKilledHolderDoesNotBlockTheNextRun) {
  const test::TempFolder folder;
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const RunLock lock(folder.path());
    (void)!::write(ready[1], "x", 1);
    while (true) ::pause();
  }
  char byte = 0;
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  EXPECT_THAT(usage_error_of([&] { const RunLock lock(folder.path()); }),
              HasSubstr("process " + std::to_string(child)));
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  EXPECT_TRUE(fs::exists(folder.path() / ".lock"));
  const RunLock lock(folder.path());
  ::close(ready[0]);
  ::close(ready[1]);
}

TEST(RunLock, AFileInPlaceOfTheFolder) {
  const test::TempFolder folder;
  const fs::path file = folder.write("file", "x");
  EXPECT_THAT(usage_error_of([&] { const RunLock lock(file); }), HasSubstr("is not a folder"));
}

TEST(OutputFolder, AnEarlierRunIsProtected) {
  const test::TempFolder folder;
  prepare_output_folder(folder.path(), {});  // empty: fine
  write_run_record(folder.path(), {.state = "failed", .step = 0});
  prepare_output_folder(folder.path(), {});  // it never made a step
  write_run_record(folder.path(), {.state = "done", .step = 12});
  EXPECT_THAT(usage_error_of([&] { prepare_output_folder(folder.path(), {}); }),
              HasSubstr("a run that reached step 12"));
  publish(folder.path(), 10);
  publish(folder.path(), 12);
  const std::string error = usage_error_of([&] { prepare_output_folder(folder.path(), {}); });
  EXPECT_THAT(error, HasSubstr("it holds checkpoint-12"));
  EXPECT_THAT(error, HasSubstr("resume_from_checkpoint = \"latest\""));
  fs::create_directory(folder.path() / ".stage-13-1");
  prepare_output_folder(folder.path(), {.resume = true});
  EXPECT_FALSE(fs::exists(folder.path() / ".stage-13-1"));
  EXPECT_EQ(CheckpointStore(folder.path()).list().size(), 2U);
}

TEST(OutputFolder, OverwriteDeletesOnlyWhatDtrainWrote) {
  const test::TempFolder folder;
  publish(folder.path(), 10);
  write_run_record(folder.path(), {.state = "done", .step = 10});
  folder.write("model.safetensors", "w");
  folder.write("log.jsonl", "{}");
  folder.write("notes.txt", "mine");
  fs::create_directory(folder.path() / "checkpoint-99");  // without manifest: not dtrain's
  fs::create_directory(folder.path() / "data");
  prepare_output_folder(folder.path(), {.overwrite = true});
  std::vector<std::string> left;
  for (const auto& entry : fs::directory_iterator(folder.path())) left.push_back(entry.path().filename().string());
  EXPECT_THAT(left, testing::UnorderedElementsAre("notes.txt", "checkpoint-99", "data"));
}

TEST(OutputFolder, OverwriteWithADamagedRecord) {
  const test::TempFolder folder;
  folder.write("run.json", "{broken");
  EXPECT_THROW(prepare_output_folder(folder.path(), {}), Error);
  prepare_output_folder(folder.path(), {.resume = true});
  prepare_output_folder(folder.path(), {.overwrite = true});
  EXPECT_FALSE(fs::exists(folder.path() / "run.json"));
}

TEST(OutputFolder, AModelOfSomeoneElseIsNeverOverwritten) {
  const test::TempFolder folder;
  folder.write("config.json", "{}");
  folder.write("model.safetensors", "w");
  for (const bool overwrite : {false, true}) {
    for (const bool resume : {false, true}) {
      EXPECT_THAT(
          usage_error_of([&] { prepare_output_folder(folder.path(), {.overwrite = overwrite, .resume = resume}); }),
          HasSubstr("holds a model that no run of dtrain wrote"));
    }
  }
  EXPECT_EQ(read_file(folder.path() / "model.safetensors"), "w");
}

}  // namespace
}  // namespace dtrain
