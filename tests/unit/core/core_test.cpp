#include <algorithm>
#include <array>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/child_process.h"
#include "core/clock.h"
#include "core/digest.h"
#include "core/error.h"
#include "core/fault.h"
#include "core/file.h"
#include "core/hub_folder.h"
#include "core/json.h"
#include "core/random.h"
#include "tests/support/temp_folder.h"

namespace dtrain {
namespace {
namespace fs = std::filesystem;
using test::TempFolder;
using testing::HasSubstr;

// Known-answer vectors of the Random123 distribution (kat_vectors, philox4x32 with 10 rounds).
TEST(Philox, EqualsTheKnownAnswers) {
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}), (PhiloxCounter{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
            (PhiloxCounter{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (PhiloxCounter{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(RandomKey, DiffersByStepAndSeed) {
  EXPECT_NE((RandomKey{42, 0}.philox()), (RandomKey{42, 1}.philox()));
  EXPECT_NE((RandomKey{42, 0}.philox()), (RandomKey{43, 0}.philox()));
}

TEST(Digest, EqualsItselfInPieces) {
  EXPECT_EQ(digest_of("hello world"), Digest().add("hello ").add("world").hex());
  EXPECT_NE(digest_of("hello world"), digest_of("hello worle"));
  EXPECT_EQ(digest_of("").size(), 32U);
}

TEST(File, ReplaceLeavesNoTemporaryFileAndTheNewContent) {
  const TempFolder folder;
  const fs::path path = folder.write("a.txt", "old");
  replace_file(path, "new");
  EXPECT_EQ(read_file(path), "new");
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator()), 1);
}

TEST(File, MissingFileNamesThePathAndTheExitCode) {
  try {
    (void)read_file("/nonexistent/file");
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kIo);
    EXPECT_THAT(error.what(), HasSubstr("/nonexistent/file"));
    EXPECT_THAT(error.hint(), HasSubstr("spelling"));
  }
}

TEST(File, MapsWhatWasWritten) {
  const TempFolder folder;
  const MappedFile full(folder.write("full", std::string("a\0b", 3)));
  EXPECT_EQ(full.text(), std::string_view("a\0b", 3));
  EXPECT_TRUE(MappedFile(folder.write("empty", "")).bytes().empty());
  EXPECT_THROW(MappedFile(folder.path()), Error);
}

TEST(File, WriteToAFullDeviceIsAnError) {
  OutputFile file("/dev/full", OutputFile::Mode::kTruncate);
  try {
    file.write("x");
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kIo);
    EXPECT_THAT(error.hint(), HasSubstr("disk is full"));
  }
}

TEST(FileLock, IsHeldByOneAndFreedWithIt) {
  const TempFolder folder;
  {
    const FileLock first(folder.path() / "lock");
    EXPECT_TRUE(first.held());
    EXPECT_FALSE(FileLock(folder.path() / "lock").held());
  }
  EXPECT_TRUE(FileLock(folder.path() / "lock").held());
}

TEST(NearestName, FindsASlipAndNothingFarAway) {
  const std::array<std::string, 3> known = {"learning_rate", "eval_steps", "save_steps"};
  EXPECT_EQ(nearest_name("learnin_rate", known), "learning_rate");
  EXPECT_EQ(nearest_name("eval_step", known), "eval_steps");
  EXPECT_EQ(nearest_name("xyzzyplugh", known), "");
}

TEST(RepositoryName, AsTheHubAllowsIt) {
  for (const char* good : {"gpt2", "user/name", "a/b.c_d-e", "user/1"}) EXPECT_TRUE(is_repository_name(good)) << good;
  for (const char* bad : {"", "/", "a/", "/b", "a/b/c", "-a/b", "a/-b", "a/b-", "a/.b", "a--b", "a/b..c", "a/b.git",
                          "a b", "a/b\n", "--token=x"}) {
    EXPECT_FALSE(is_repository_name(bad)) << bad;
  }
}

TEST(ChildProcess, GetsArgumentsAndEnvironmentAsTheyAre) {
  const TempFolder folder;
  const auto program = find_program("sh");
  ASSERT_TRUE(program.has_value());
  const fs::path output = folder.path() / "output";
  const std::vector<std::string> arguments = {
      program->string(), "-c", "printf '%s|' \"$@\" \"$EXTRA\"; cat; exit 7", "sh", "a b", "$HOME", "; exit 1", "\"'"};
  {
    ChildProcess child({.arguments = arguments, .output = output, .environment = {{"EXTRA", "x=y"}}});
    EXPECT_EQ(child.wait(), 7);
    EXPECT_EQ(child.wait(), 7);
  }
  EXPECT_EQ(read_file(output), "a b|$HOME|; exit 1|\"'|x=y|");
  ChildProcess second({.arguments = {program->string(), "-c", "echo more >&2"}, .output = output});
  EXPECT_EQ(second.wait(), 0);
  EXPECT_EQ(read_file(output), "a b|$HOME|; exit 1|\"'|x=y|more\n");  // appended, standard error too
}

TEST(ChildProcess, InheritsNoFile) {
  const TempFolder folder;
  const fs::path output = folder.path() / "output";
  const int left_open = ::open("/dev/null", O_RDONLY);  // without O_CLOEXEC
  ASSERT_GE(left_open, 3);
  ChildProcess child({.arguments = {find_program("ls")->string(), "/proc/self/fd"}, .output = output});
  EXPECT_EQ(child.wait(), 0);
  ::close(left_open);
  EXPECT_EQ(read_file(output), "0\n1\n2\n3\n");  // 3: the folder that ls reads
}

TEST(ChildProcess, CanBeStoppedWhileSomebodyWaits) {
  const TempFolder folder;
  const std::vector<std::string> forever = {find_program("sleep")->string(), "1000"};
  ChildProcess child({.arguments = forever, .output = folder.path() / "output"});
  std::thread stopper([&] { child.stop(); });
  EXPECT_EQ(child.wait(), 128 + SIGKILL);
  stopper.join();
  child.stop();  // harmless: it is gone
  // The destructor stops it too.
  { ChildProcess another({.arguments = forever, .output = folder.path() / "output"}); }
}

TEST(ChildProcess, IsWaitedForAWhileAndSentSignals) {
  const TempFolder folder;
  // It says when it is ready for the signal, and goes on after it.
  const std::string script = "trap 'exit 7' USR2; echo ready; while true; do sleep 0.01; done";
  ChildProcess child({.arguments = {find_program("sh")->string(), "-c", script}, .output = folder.path() / "output"});
  while (!std::filesystem::exists(folder.path() / "output") || read_file(folder.path() / "output") != "ready\n") {
    ASSERT_EQ(child.wait_for(0), std::nullopt);
  }
  child.send(SIGUSR2);
  EXPECT_EQ(child.wait_for(60), 7);
  EXPECT_EQ(child.wait_for(0), 7);
  child.send(SIGUSR2);  // to nobody
}

TEST(ChildProcess, ThatCannotStart) {
  const TempFolder folder;
  EXPECT_THROW(ChildProcess({.arguments = {"/nonexistent/program"}, .output = folder.path() / "output"}), Error);
  EXPECT_EQ(find_program("no-such-program-anywhere"), std::nullopt);
}

TEST(PretrainedFolder, IsTheFolderOrTheSnapshotInTheCache) {
  const TempFolder folder;
  ASSERT_EQ(setenv("HF_HUB_CACHE", folder.path().c_str(), 1), 0);
  folder.write("models--org--name/refs/main", "abc123\n");
  folder.write("models--org--name/snapshots/abc123/config.json", "{}");
  EXPECT_EQ(pretrained_folder("org/name"), folder.path() / "models--org--name/snapshots/abc123");
  EXPECT_EQ(pretrained_folder(folder.path().string()), folder.path());
  for (const char* missing : {"org/other", "./nowhere", "a/b/c"}) {
    try {
      (void)pretrained_folder(missing);
      FAIL() << missing;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kUsage);
    }
  }
  try {
    (void)pretrained_folder("org/other");
  } catch (const Error& error) {
    EXPECT_EQ(error.hint(), "fetch it with: hf download org/other");
  }
  unsetenv("HF_HUB_CACHE");
}

TEST(HubDatasetPath, IsTheSnapshotInTheCacheAndTheRest) {
  const TempFolder folder;
  ASSERT_EQ(setenv("HF_HUB_CACHE", folder.path().c_str(), 1), 0);
  folder.write("datasets--user--name/refs/main", "abc123");
  folder.write("datasets--user--name/snapshots/abc123/a.jsonl", "");
  const auto path = hub_dataset_path("hf://datasets/user/name/data/train-*.parquet");
  ASSERT_TRUE(path.has_value());
  EXPECT_EQ(path->folder, folder.path() / "datasets--user--name/snapshots/abc123");
  EXPECT_EQ(path->file, "data/train-*.parquet");
  EXPECT_EQ(path->fetch_command, "hf download user/name --repo-type dataset");
  EXPECT_EQ(hub_dataset_path("hf://datasets/user/name")->file, "");
  EXPECT_EQ(hub_dataset_path("user/name/data.parquet"), std::nullopt);
  // $HF_HOME counts where $HF_HUB_CACHE is not set.
  unsetenv("HF_HUB_CACHE");
  ASSERT_EQ(setenv("HF_HOME", folder.path().c_str(), 1), 0);
  folder.write("hub/datasets--user--other/refs/main", "1");
  folder.write("hub/datasets--user--other/snapshots/1/a.jsonl", "");
  EXPECT_EQ(hub_dataset_path("hf://datasets/user/other/a.jsonl")->folder,
            folder.path() / "hub/datasets--user--other/snapshots/1");
  for (const char* bad : {"hf://", "hf://datasets/", "hf://datasets/name", "hf://datasets//name/x",
                          "hf://models/user/name/x", "hf://datasets/user/na me/x", "hf://datasets/../name/x"}) {
    try {
      (void)hub_dataset_path(bad);
      FAIL() << bad;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kUsage);
      EXPECT_NE(std::string(error.what()).find("names no data set"), std::string::npos) << error.what();
    }
  }
  try {
    (void)hub_dataset_path("hf://datasets/user/name/x");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.hint(), "fetch it with: hf download user/name --repo-type dataset");
  }
  unsetenv("HF_HOME");
}

TEST(Fault, StrikesTheNamedRankAtTheNamedNumberOnly) {
  ASSERT_EQ(setenv("DTRAIN_FAULT", "rank=1 point=step at=3 kind=throw", 1), 0);
  set_up_faults(0);
  EXPECT_NO_THROW(fault_point("step", 3));
  set_up_faults(1);
  EXPECT_NO_THROW(fault_point("step", 2));
  EXPECT_NO_THROW(fault_point("save", 3));
  EXPECT_THROW(fault_point("step", 3), Error);
  ASSERT_EQ(setenv("DTRAIN_FAULT", "rank=1 point=step kind=sing", 1), 0);
  EXPECT_THROW(set_up_faults(1), Error);
  unsetenv("DTRAIN_FAULT");
  set_up_faults(1);
  EXPECT_NO_THROW(fault_point("step", 3));
}

TEST(Fault, KindsThatTheCallerCarriesOutAndSlowness) {
  ASSERT_EQ(setenv("DTRAIN_FAULT", "rank=0 point=collective at=7 kind=skip", 1), 0);
  set_up_faults(0);
  EXPECT_TRUE(fault_asked("collective", 7, "skip"));
  EXPECT_FALSE(fault_asked("collective", 7, "resize"));
  EXPECT_FALSE(fault_asked("collective", 8, "skip"));
  EXPECT_NO_THROW(fault_point("collective", 7));
  ASSERT_EQ(setenv("DTRAIN_FAULT", "rank=0 point=step at=2 kind=slow ms=30", 1), 0);
  set_up_faults(0);
  const Stopwatch watch;
  fault_point("step", 1);
  EXPECT_LT(watch.seconds(), 0.03);
  fault_point("step", 2);
  fault_point("step", 3);
  EXPECT_GE(watch.seconds(), 0.06);
  unsetenv("DTRAIN_FAULT");
  set_up_faults(0);
}

// "message" of the Error that parsing gives, or "".
std::string json_failure(const std::string& text) {
  try {
    (void)parse_json(text, "x.json");
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kData);
    return error.what();
  }
  return "";
}

TEST(Json, DepthIsLimitedOutsideOfStrings) {
  const auto nested = [](std::size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_EQ(json_failure(nested(256)), "");
  EXPECT_EQ(json_failure(nested(257)), "x.json: not valid JSON: more than 256 levels deep");
  EXPECT_NE(json_failure(std::string(4U << 20U, '[')), "");
  EXPECT_EQ(json_failure("\"\\\"" + nested(257) + "\""), "");
  std::string flat = "[[]";
  for (int i = 0; i < 1000; ++i) flat += ", {}";
  EXPECT_EQ(json_failure(flat + "]"), "");
}

TEST(Json, NothingFollowsAZeroByte) {
  using std::string_literals::operator""s;
  EXPECT_EQ(json_failure("{}\0{"s), "x.json: not valid JSON: it holds a zero byte");
}

TEST(Error, IsOneShortLineWhateverItQuotes) {
  const Error error = data_error("a\nb\x1B[2J\x7F\xC3\xA9", "c\nd");
  EXPECT_STREQ(error.what(), "a?b?[2J?\xC3\xA9");
  EXPECT_EQ(error.hint(), "c?d");
  const std::string message = usage_error(std::string(3999, 'x') + "\xC3\xA9" + std::string(1U << 20U, 'y')).what();
  EXPECT_EQ(message, std::string(3999, 'x') + "...") << "cut between characters";
}

TEST(Json, DamageNamesTheFile) {
  try {
    (void)parse_json("{\"a\": ", "config.json");
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kData);
    EXPECT_THAT(error.what(), HasSubstr("config.json"));
  }
}

}  // namespace
}  // namespace dtrain
