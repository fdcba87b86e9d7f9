// The checkpoint store: what is published is whole, what fails leaves nothing, and every kind of damage is named.
#include "trainer/checkpoint/checkpoint_store.h"

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <functional>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/error.h"
#include "core/fault.h"
#include "core/file.h"
#include "tests/support/temp_folder.h"
#include "trainer/checkpoint/manifest.h"

namespace dtrain {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

PublishRequest request_of(std::int64_t step, const std::string& content = "weights") {
  return {.step = step,
          .bytes = 1000,
          .config_digest = "abc",
          .facts = {{"best_step", step}},
          .write = [content](const fs::path& stage) {
            std::ofstream(stage / "model.safetensors") << content << std::string(500, 'x');
            std::ofstream(stage / "config.json") << "{}";
            fs::create_directory(stage / "extra");
            std::ofstream(stage / "extra" / "empty");
          }};
}

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

void flip_bit(const fs::path& path, std::size_t byte, int bit) {
  std::string bytes = read_file(path);
  bytes.at(byte) = static_cast<char>(bytes.at(byte) ^ (1 << bit));
  std::ofstream(path) << bytes;  // unsynced: quick
}

TEST(CheckpointStore, PublishesAWholeFolder) {
  const test::TempFolder folder;
  const CheckpointStore store(folder.path() / "new" / "run");
  EXPECT_FALSE(store.latest());
  const fs::path published = store.publish(request_of(50));
  EXPECT_EQ(published, store.output_dir() / "checkpoint-50");
  EXPECT_EQ(names_in(store.output_dir()), (std::vector<std::string>{"checkpoint-50"}));
  EXPECT_EQ(names_in(published),
            (std::vector<std::string>{"config.json", "extra", "manifest.json", "model.safetensors"}));
  EXPECT_EQ(checkpoint_damage(published), "");
  const Json manifest = read_manifest(published);
  EXPECT_EQ(manifest.at("step"), 50);
  EXPECT_EQ(manifest.at("config_digest"), "abc");
  EXPECT_EQ(manifest.at("facts").at("best_step"), 50);
  EXPECT_EQ(manifest.at("files").size(), 3U);
  EXPECT_EQ(manifest.at("files").at("extra/empty").at("bytes"), 0);
  EXPECT_EQ(store.latest()->step, 50);
}

TEST(CheckpointStore, FailingWriterLeavesNothingAndHarmsNothing) {
  const test::TempFolder folder;
  const CheckpointStore store(folder.path());
  store.publish(request_of(1));
  PublishRequest request = request_of(2);
  request.write = [](const fs::path& stage) {
    std::ofstream(stage / "half") << "half";
    throw std::runtime_error("writer broke");
  };
  EXPECT_THROW(store.publish(request), std::runtime_error);
  EXPECT_EQ(names_in(folder.path()), (std::vector<std::string>{"checkpoint-1"}));
  EXPECT_EQ(store.latest()->step, 1);
  EXPECT_EQ(store.publish(request_of(2)), store.folder_of(2));  // and the next attempt works
}

TEST(CheckpointStore, RefusesBeforeWritingWhenTheDiskIsTooSmall) {
  const test::TempFolder folder;
  const CheckpointStore store(folder.path());
  PublishRequest request = request_of(1);
  request.bytes = std::uint64_t{1} << 60;
  bool written = false;
  request.write = [&](const fs::path&) { written = true; };
  try {
    store.publish(request);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kIo);
    EXPECT_THAT(error.what(), HasSubstr("checkpoint of step 1 needs"));
    EXPECT_THAT(error.hint(), HasSubstr("save_total_limit"));
  }
  EXPECT_FALSE(written);
  EXPECT_TRUE(names_in(folder.path()).empty());
}

TEST(CheckpointStore, FullDiskKeepsTheOlderCheckpoint) {
  const test::TempFolder folder;
  if (::mount("none", folder.path().c_str(), "tmpfs", 0, "size=1m") != 0) GTEST_SKIP() << "mounting needs root";
  struct Unmount {
    fs::path path;
    ~Unmount() { ::umount2(path.c_str(), MNT_DETACH); }
  } const unmount{folder.path()};
  const CheckpointStore store(folder.path());
  store.publish(request_of(1));
  PublishRequest request = request_of(2);  // with an estimate that is far too small
  request.write = [](const fs::path& stage) { write_file_synced(stage / "large", std::string(2 << 20, 'x')); };
  try {
    store.publish(request);
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kIo);
    EXPECT_THAT(error.what(), HasSubstr("No space left"));
  }
  EXPECT_EQ(names_in(folder.path()), (std::vector<std::string>{"checkpoint-1"}));
  EXPECT_EQ(checkpoint_damage(store.folder_of(1)), "");
  store.publish(request_of(2));  // the space is back
  EXPECT_EQ(store.latest()->step, 2);
}

TEST(CheckpointStore, AnOlderOneOfTheSameStepIsReplaced) {
  const test::TempFolder folder;
  const CheckpointStore store(folder.path());
  store.publish(request_of(5, "old"));
  store.publish(request_of(5, "new"));
  EXPECT_THAT(read_file(store.folder_of(5) / "model.safetensors"), testing::StartsWith("new"));
  EXPECT_EQ(names_in(folder.path()), (std::vector<std::string>{"checkpoint-5"}));
}

TEST(CheckpointStore, FoldersThatItDidNotWriteAreKept) {
  const test::TempFolder folder;
  const CheckpointStore store(folder.path());
  fs::create_directory(folder.path() / "checkpoint-5");
  folder.write("checkpoint-5/theirs", "theirs");
  EXPECT_TRUE(store.list().empty());
  store.publish(request_of(5));
  EXPECT_EQ(names_in(folder.path()), (std::vector<std::string>{"checkpoint-5", "checkpoint-5.old"}));
  EXPECT_EQ(read_file(folder.path() / "checkpoint-5.old" / "theirs"), "theirs");
  EXPECT_EQ(checkpoint_damage(store.folder_of(5)), "");
}

TEST(CheckpointStore, EveryFlippedBitOfEveryFileIsFound) {
  const test::TempFolder folder;
  const CheckpointStore store(folder.path());
  const fs::path published = store.publish(request_of(3));
  for (const char* name : {"model.safetensors", "config.json", "manifest.json"}) {
    const std::size_t size = fs::file_size(published / name);
    for (std::size_t byte = 0; byte < size; byte += (byte < 40 ? 1 : 13)) {
      const int bit = static_cast<int>(byte % 8);
      flip_bit(published / name, byte, bit);
      EXPECT_THAT(checkpoint_damage(published), HasSubstr(name)) << byte;
      flip_bit(published / name, byte, bit);
    }
  }
  EXPECT_EQ(checkpoint_damage(published), "");
}

TEST(CheckpointStore, DamageSaysWhichFileAndWhat) {
  const test::TempFolder folder;
  const CheckpointStore store(folder.path());
  const fs::path published = store.publish(request_of(3));
  const std::string model = read_file(published / "model.safetensors");
  fs::resize_file(published / "model.safetensors", 100);
  EXPECT_EQ(checkpoint_damage(published), "model.safetensors: 100 bytes instead of 507");
  fs::remove(published / "model.safetensors");
  EXPECT_EQ(checkpoint_damage(published), "model.safetensors: missing");
  write_file_synced(published / "model.safetensors", model);
  EXPECT_EQ(checkpoint_damage(published), "");
  fs::rename(published, folder.path() / "checkpoint-4");
  EXPECT_EQ(checkpoint_damage(folder.path() / "checkpoint-4"), "manifest.json: is of step 3");
  EXPECT_EQ(checkpoint_damage(folder.path() / "nowhere"), "no such folder");
}

TEST(CheckpointStore, FilesOfAnotherStepAreFound) {
  const test::TempFolder folder;
  const CheckpointStore store(folder.path());
  store.publish(request_of(1, "AAAA"));
  store.publish(request_of(2, "BBBB"));
  fs::copy_file(store.folder_of(1) / "model.safetensors", store.folder_of(2) / "model.safetensors",
                fs::copy_options::overwrite_existing);
  EXPECT_THAT(checkpoint_damage(store.folder_of(2)), HasSubstr("model.safetensors: digest differs"));
}

TEST(CheckpointStore, LatestFallsBackAndSaysSo) {
  const test::TempFolder folder;
  const CheckpointStore store(folder.path());
  for (const std::int64_t step : {9, 10, 100}) store.publish(request_of(step));
  EXPECT_EQ(store.latest()->step, 100);  // by number, not by name
  flip_bit(store.folder_of(100) / "model.safetensors", 7, 3);
  testing::internal::CaptureStderr();
  EXPECT_EQ(store.latest()->step, 10);
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_THAT(said, HasSubstr("checkpoint-100: model.safetensors: digest differs"));
  fs::remove(store.folder_of(10) / "manifest.json");
  EXPECT_EQ(store.latest()->step, 9);
  fs::resize_file(store.folder_of(9) / "config.json", 0);
  try {
    (void)store.latest();
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kData);
    EXPECT_THAT(error.what(), HasSubstr("none of the 3 checkpoints"));
  }
}

TEST(CheckpointStore, LeftoversGoAndNothingElse) {
  const test::TempFolder folder;
  const CheckpointStore store(folder.path());
  store.publish(request_of(1));
  for (const char* name : {".stage-2-123", ".dead-1-99", ".git", "mine"}) {
    fs::create_directory(folder.path() / name);
    folder.write(std::string(name) + "/file", "x");
  }
  store.remove_leftovers();
  EXPECT_EQ(names_in(folder.path()), (std::vector<std::string>{".git", "checkpoint-1", "mine"}));
}

TEST(CheckpointStore, PruneFollowsThePolicy) {
  const test::TempFolder folder;
  const CheckpointStore store(folder.path());
  for (const std::int64_t step : {10, 20, 30, 40}) store.publish(request_of(step));
  EXPECT_EQ(store.prune(10, 2), (std::vector<std::int64_t>{20, 30}));
  EXPECT_EQ(names_in(folder.path()), (std::vector<std::string>{"checkpoint-10", "checkpoint-40"}));
  EXPECT_EQ(store.list().size(), 2U);
  EXPECT_EQ(store.list()[0].step, 10);
  EXPECT_THROW(store.remove(77), Error);
}

// Runs `function` in a process that is killed when it passes the fault point.
void run_killed_at(const std::string& point, const std::function<void()>& function) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::setenv("DTRAIN_FAULT", ("rank=0 point=" + point + " at=2 kind=kill").c_str(), 1);
    set_up_faults(0);
    function();
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << point;
}

TEST(CheckpointStore, KilledBeforeOrAfterTheRename) {
  const test::TempFolder folder;
  const CheckpointStore store(folder.path());
  store.publish(request_of(1));
  run_killed_at("publish", [&] { store.publish(request_of(2)); });
  EXPECT_EQ(store.latest()->step, 1);
  EXPECT_EQ(names_in(folder.path()).size(), 2U);  // the stage is still there
  store.remove_leftovers();
  EXPECT_EQ(names_in(folder.path()), (std::vector<std::string>{"checkpoint-1"}));
  run_killed_at("published", [&] { store.publish(request_of(2)); });
  EXPECT_EQ(store.latest()->step, 2);
}

TEST(CheckpointStore, KilledWhileRemoving) {
  const test::TempFolder folder;
  const CheckpointStore store(folder.path());
  for (const std::int64_t step : {1, 2, 3}) store.publish(request_of(step));
  run_killed_at("unpublished", [&] { store.prune(1, 2); });
  EXPECT_EQ(store.list().size(), 2U);
  EXPECT_EQ(store.latest()->step, 3);
  store.remove_leftovers();
  EXPECT_EQ(names_in(folder.path()), (std::vector<std::string>{"checkpoint-1", "checkpoint-3"}));
}

TEST(CheckpointStore, StepsInNames) {
  EXPECT_EQ(step_of_name("checkpoint-0"), 0);
  EXPECT_EQ(step_of_name("checkpoint-125"), 125);
  for (const char* name : {"checkpoint-", "checkpoint--1", "checkpoint-1a", "checkpoint-01", "checkpoint-5.old",
                           "step-5", "checkpoint-99999999999999999999"}) {
    EXPECT_FALSE(step_of_name(name)) << name;
  }
}

TEST(CheckpointStore, NewerFormatsAreRefusedByVersion) {
  const test::TempFolder folder;
  fs::create_directory(folder.path() / "checkpoint-1");
  folder.write("checkpoint-1/manifest.json", R"({"format": "dtrain checkpoint", "version": 2})");
  EXPECT_THAT(checkpoint_damage(folder.path() / "checkpoint-1"), HasSubstr("format version 2"));
  folder.write("checkpoint-1/manifest.json", "[]");
  EXPECT_THAT(checkpoint_damage(folder.path() / "checkpoint-1"), HasSubstr("\"format\" is not"));
  folder.write("checkpoint-1/manifest.json", R"({"format": "dtrain checkpoint", "version": "x"})");
  EXPECT_THAT(checkpoint_damage(folder.path() / "checkpoint-1"), HasSubstr("version"));
}

TEST(CheckpointStore, ManifestsThatAreNoneAreRefusedDespiteTheirDigest) {
  const test::TempFolder folder;
  fs::create_directory(folder.path() / "checkpoint-1");
  const auto damage = [&](const char* key, const Json& value) {
    Json content = {{"step", 1}, {"config_digest", "x"}, {"facts", Json::object()}, {"files", Json::object()}};
    content[key] = value;
    folder.write("checkpoint-1/manifest.json", manifest_text(content));
    return checkpoint_damage(folder.path() / "checkpoint-1");
  };
  EXPECT_EQ(damage("config_digest", "y"), "");
  for (const char* name : {"/etc/passwd", "../x", "a/../../x", "a//../..", "", "a/"}) {
    EXPECT_THAT(damage("files", {{name, {{"bytes", 0}, {"xxh3_128", ""}}}}), HasSubstr("is not the name of a file"))
        << name;
  }
  EXPECT_THAT(damage("step", std::uint64_t{1} << 63U), HasSubstr("\"step\" or \"files\" is missing"));
  EXPECT_THAT(damage("step", -1), HasSubstr("\"step\" or \"files\" is missing"));
  EXPECT_THAT(damage("facts", Json::array()), HasSubstr("\"facts\" is missing"));
  // A number that becomes negative as int64 is no older version.
  folder.write("checkpoint-1/manifest.json", R"({"format": "dtrain checkpoint", "version": 18446744073709551615})");
  EXPECT_THAT(checkpoint_damage(folder.path() / "checkpoint-1"), HasSubstr("format version 18446744073709551615"));
}

}  // namespace
}  // namespace dtrain
