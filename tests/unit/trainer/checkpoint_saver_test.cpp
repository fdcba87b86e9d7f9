// CheckpointSaver: the training goes on while a checkpoint is written, all ranks learn its fate at the same call, and a
// failure is an error or a warning.
#include "trainer/checkpoint_saver.h"

#include <atomic>
#include <fstream>
#include <system_error>
#include <thread>

#include <ATen/ops/full.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pthread.h>
#include <sys/stat.h>

#include "core/file.h"
#include "core/log.h"
#include "dist/thread_ranks.h"
#include "tests/support/temp_folder.h"

namespace dtrain {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
constexpr double kUntilDone = CheckpointSaver::kUntilDone;

CheckpointSnapshot snapshot_of(double value) {
  CheckpointSnapshot snapshot;
  snapshot.model.tensors = {{"weight", at::full({1000}, value)}};
  snapshot.model.files = {{"config.json", "{}"}};
  snapshot.optimizer = {{"weight.exp_avg", at::full({1000}, value)}};
  return snapshot;
}

// A file name that no folder has room for: the stage cannot be written.
CheckpointSnapshot unwritable() {
  CheckpointSnapshot snapshot = snapshot_of(1);
  snapshot.files.emplace_back("no/such/folder/file", "x");
  return snapshot;
}

// Asks as the loop does, once per step, until it is over.
std::optional<PublishedCheckpoint> settled(CheckpointSaver& saver) {
  std::optional<PublishedCheckpoint> published;
  while (saver.pending() && !published) published = saver.settle(0);
  return published;
}

TEST(CheckpointSaver, TheSnapshotIsOfTheStepThatAskedForIt) {
  const test::TempFolder folder;
  run_thread_ranks(3, [&](ThreadRank& rank) {
    const CheckpointStore store(folder.path());
    CheckpointSaver saver(store, rank.host, {.save_total_limit = 2});
    const at::Tensor weight = at::full({1000}, 5.0);
    for (std::int64_t step = 1; step <= 4; ++step) {
      weight.fill_(static_cast<double>(step));
      EXPECT_FALSE(saver.pending());
      saver.save(step, [&] {
        EXPECT_EQ(rank.host.rank(), 0);
        CheckpointSnapshot snapshot = snapshot_of(0);
        snapshot.model.tensors = {{"weight", weight}};
        return snapshot;
      });
      weight.fill_(-1.0);  // the next step
      EXPECT_TRUE(saver.pending());
      const auto published = settled(saver);
      ASSERT_TRUE(published);
      EXPECT_EQ(published->step, step);
      EXPECT_EQ(published->folder, store.folder_of(step));
    }
    EXPECT_FALSE(saver.settle(kUntilDone));
  });
  const CheckpointStore store(folder.path());
  ASSERT_EQ(store.list().size(), 2U);
  for (const Checkpoint& checkpoint : store.list()) {
    EXPECT_EQ(checkpoint_damage(checkpoint.folder), "");
    const SafetensorsFile file(checkpoint.folder / "model.safetensors");
    EXPECT_TRUE(file.tensor("weight").eq(static_cast<double>(checkpoint.step)).all().item<bool>());
  }
  EXPECT_EQ(read_run_record(folder.path())->checkpoint, "checkpoint-4");
}

TEST(CheckpointSaver, NobodyWaitsWhileTheDiskIsSlow) {
  const test::TempFolder folder;
  // The writer blocks in this file until somebody reads it.
  const fs::path slow = folder.path() / "slow";
  ASSERT_EQ(::mkfifo(slow.c_str(), 0600), 0);
  run_thread_ranks(2, [&](ThreadRank& rank) {
    const CheckpointStore store(folder.path() / "out");
    CheckpointSaver saver(store, rank.host, {.warn_on_failure = true});
    CheckpointSnapshot snapshot = snapshot_of(1);
    snapshot.files.emplace_back(slow.string(), "x");
    saver.save(1, [&] { return snapshot; });
    for (int i = 0; i < 50; ++i) EXPECT_FALSE(saver.settle(0));
    EXPECT_TRUE(saver.pending());
    saver.skip(2);
    std::thread reader;
    if (rank.host.rank() == 0) {
      reader = std::thread([&] {
        for (int attempt = 0; attempt < 2; ++attempt) (void)read_file(slow);
      });
    }
    EXPECT_FALSE(saver.settle(kUntilDone));  // a pipe cannot be synced
    EXPECT_FALSE(saver.pending());
    if (reader.joinable()) reader.join();
    saver.save(3, [&] { return snapshot_of(3); });
    EXPECT_TRUE(saver.settle(kUntilDone));
  });
  EXPECT_EQ(CheckpointStore(folder.path() / "out").list().size(), 1U);
}

// Threads cannot be had while it lives: their stacks would not fit the address space.
class NoThreads {
 public:
  NoThreads() {
    pthread_attr_t attributes;
    EXPECT_EQ(pthread_getattr_default_np(&attributes), 0);
    EXPECT_EQ(pthread_attr_getstacksize(&attributes, &before_), 0);
    set(std::size_t{1} << 60);
  }
  ~NoThreads() { set(before_); }
  NoThreads(const NoThreads&) = delete;
  NoThreads& operator=(const NoThreads&) = delete;

 private:
  static void set(std::size_t size) {
    pthread_attr_t attributes;
    EXPECT_EQ(pthread_attr_init(&attributes), 0);
    EXPECT_EQ(pthread_attr_setstacksize(&attributes, size), 0);
    EXPECT_EQ(pthread_setattr_default_np(&attributes), 0);
  }
  std::size_t before_ = 0;
};

TEST(CheckpointSaver, WithoutAThreadTheStepWrites) {
  const test::TempFolder folder;
  const CheckpointStore store(folder.path());
  run_thread_ranks(1, [&](ThreadRank& rank) {
    CheckpointSaver saver(store, rank.host, {});
    {
      const NoThreads none;
      EXPECT_THROW(std::thread([] {}), std::system_error);
      saver.save(1, [] { return snapshot_of(1); });
    }
    EXPECT_TRUE(store.list().empty());
    EXPECT_TRUE(saver.settle(0));
  });
  ASSERT_EQ(store.list().size(), 1U);
  EXPECT_EQ(checkpoint_damage(store.list()[0].folder), "");
}

TEST(CheckpointSaver, AFailureIsAnErrorOnAllRanks) {
  for (const bool in_background : {true, false}) {
    const test::TempFolder folder;
    std::atomic<int> failed = 0;
    run_thread_ranks(3, [&](ThreadRank& rank) {
      const CheckpointStore store(folder.path());
      CheckpointSaver saver(store, rank.host, {.in_background = in_background});
      saver.save(1, &unwritable);
      try {
        (void)saver.settle(kUntilDone);
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ExitCode::kIo);
        EXPECT_THAT(error.what(), HasSubstr("no/such/folder/file"));
        EXPECT_FALSE(saver.pending());
        ++failed;
      }
    });
    EXPECT_EQ(failed, 3);
    EXPECT_TRUE(fs::is_empty(folder.path()));  // no stage is left
  }
}

TEST(CheckpointSaver, WithWarnTheNextSaveGoesOn) {
  const test::TempFolder folder;
  run_thread_ranks(2, [&](ThreadRank& rank) {
    const CheckpointStore store(folder.path());
    CheckpointSaver saver(store, rank.host, {.warn_on_failure = true});
    saver.save(1, &unwritable);
    EXPECT_FALSE(saver.settle(kUntilDone));
    EXPECT_FALSE(saver.pending());
    saver.save(2, [] { return snapshot_of(2); });
    EXPECT_TRUE(saver.settle(kUntilDone));
    saver.stop_on_failure();
    saver.save(3, &unwritable);
    EXPECT_THROW((void)saver.settle(kUntilDone), Error);
  });
  const std::vector<Checkpoint> published = CheckpointStore(folder.path()).list();
  ASSERT_EQ(published.size(), 1U);
  EXPECT_EQ(published[0].step, 2);
}

// A defect is no full disk: it stops the run whatever the settings say.
TEST(CheckpointSaver, OnlyFailuresOfTheDiskAreForgiven) {
  const test::TempFolder folder;
  run_thread_ranks(1, [&](ThreadRank& rank) {
    const CheckpointStore store(folder.path());
    CheckpointSaver saver(store, rank.host, {.warn_on_failure = true});
    saver.save(1, [] {
      CheckpointSnapshot snapshot = snapshot_of(1);
      snapshot.optimizer.push_back(snapshot.optimizer.front());  // the same name twice
      return snapshot;
    });
    EXPECT_THROW((void)saver.settle(kUntilDone), Error);
  });
}

TEST(CheckpointSaver, ARunThatEndsOtherwiseStillPublishes) {
  const test::TempFolder folder;
  const auto run = [&](ThreadRank& rank) {
    const CheckpointStore store(folder.path());
    CheckpointSaver saver(store, rank.host, {});
    saver.save(1, [] { return snapshot_of(1); });
    throw usage_error("something else");
  };
  EXPECT_THROW(run_thread_ranks(2, run), Error);
  EXPECT_EQ(CheckpointStore(folder.path()).latest()->step, 1);
}

}  // namespace
}  // namespace dtrain
