// Sections and their deadlines, the flight recorder, dumps of ranks, and who is named from them.
#include <csignal>
#include <fstream>
#include <string>

#include <unistd.h>

#include <ATen/ops/ones.h>
#include <gtest/gtest.h>

#include "core/clock.h"
#include "core/file.h"
#include "dist/abort.h"
#include "dist/awake_time.h"
#include "dist/framed_host_comm.h"
#include "dist/hang_dump.h"
#include "dist/hang_report.h"
#include "dist/sections.h"
#include "dist/thread_ranks.h"
#include "dist/watchdog.h"
#include "tests/support/temp_folder.h"

namespace dtrain::test {
namespace {

using testing::ExitedWithCode;

constexpr SectionLimits kLimits{.init = 600, .step = 10, .eval = 20, .save = 30, .longest = 1800};

TEST(Sections, AnyExpiredOneCountsHoweverFreshTheInnerOnes) {
  Sections sections;
  sections.set_limits(kLimits);
  const std::size_t step = sections.open(Section::kStep, 100);
  const std::size_t save = sections.open(Section::kSave, 109);
  EXPECT_FALSE(sections.expired(110, false));
  ASSERT_TRUE(sections.expired(110.1, false));
  EXPECT_EQ(sections.expired(110.1, false)->section, Section::kStep);
  sections.close(step, 110.1);
  EXPECT_FALSE(sections.expired(138.9, false));
  EXPECT_EQ(sections.expired(139.1, false)->section, Section::kSave);
  sections.close(save, 139.1);
  EXPECT_FALSE(sections.expired(1e9, false));
}

TEST(Sections, ProgressBeginsTheDeadlineAnew) {
  Sections sections;
  sections.set_limits(kLimits);
  sections.open(Section::kEval, 0);
  sections.open(Section::kSave, 0);
  sections.progress(Section::kEval, 19);
  EXPECT_FALSE(sections.expired(29, false));
  EXPECT_EQ(sections.expired(30.5, false)->section, Section::kSave);
}

TEST(Sections, ARankThatWaitsWhileOthersLoadHasLonger) {
  Sections sections;
  sections.set_limits(kLimits);
  sections.open(Section::kLoad, 0);
  EXPECT_TRUE(sections.expired(601, false));
  EXPECT_FALSE(sections.expired(1799, true));
  EXPECT_TRUE(sections.expired(1801, true));
}

TEST(Sections, MoreThanThereIsRoomForAreNotWatched) {
  Sections sections;
  for (std::size_t i = 0; i < Sections::kSlots; ++i) sections.open(Section::kStep, 0);
  const std::size_t none = sections.open(Section::kStep, 0);
  sections.close(none, 1);
  EXPECT_EQ(sections.all(0).count, Sections::kSlots);
}

TEST(LearnedDeadline, IsFiveTimesTheSlowestPercentWithinItsBounds) {
  const SectionLimits limits{.init = 600, .step = {}, .eval = {}, .save = 600, .longest = 1800};
  LearnedDeadline learned;
  EXPECT_EQ(learned.seconds(limits), 600);  // the first step
  for (int i = 0; i < 9; ++i) learned.add(0.1);
  EXPECT_EQ(learned.seconds(limits), 600);
  learned.add(0.1);
  EXPECT_EQ(learned.seconds(limits), 60);
  for (int i = 0; i < 300; ++i) learned.add(i % 100 < 98 ? 1 : 40);
  EXPECT_EQ(learned.seconds(limits), 200);
  for (int i = 0; i < 300; ++i) learned.add(500);
  EXPECT_EQ(learned.seconds(limits), 1800);
}

TEST(AwakeTime, DoesNotCountWhatTheProcessSleptThrough) {
  AwakeTime awake(100, 0.5);
  EXPECT_NEAR(awake.advance(100.4), 0.4, 1e-9);
  EXPECT_NEAR(awake.advance(3700), 0.9, 1e-9);
  EXPECT_NEAR(awake.asleep(), 3599.1, 1e-6);
  EXPECT_NEAR(awake.advance(3700.1), 1.0, 1e-9);
}

TEST(FlightRecorder, KeepsTheLastCollectivesInOrder) {
  FlightRecorder recorder;
  recorder.begin_step(7);
  for (std::size_t i = 0; i < FlightRecorder::kCapacity + 10; ++i) {
    const std::uint64_t sequence = recorder.started("all_reduce", std::string(100, 'x'), 4);
    EXPECT_EQ(sequence, i + 1);
    EXPECT_TRUE(recorder.under_way());
    recorder.ended(sequence);
  }
  recorder.started("barrier", "end", -1);
  recorder.ended(1);  // long gone: changes nothing
  std::array<CollectiveRecord, FlightRecorder::kCapacity> ring;
  ASSERT_EQ(recorder.copy(ring), FlightRecorder::kCapacity);
  EXPECT_EQ(ring.front().sequence, 12U);
  EXPECT_EQ(ring.back().sequence, FlightRecorder::kCapacity + 11);
  EXPECT_EQ(ring.back().name_view(), "end");
  EXPECT_EQ(ring.back().step, 7);
  EXPECT_EQ(ring.back().ended, 0);
  EXPECT_GE(ring.front().ended, ring.front().started);
  EXPECT_EQ(ring.front().name_view(), std::string(CollectiveRecord::kNameBytes - 1, 'x'));
}

TEST(FlightRecorder, HasTheMessagesAndTheTensorsOfARankUnderOneNumbering) {
  run_thread_ranks(2, [](ThreadRank& rank) {
    rank.host.barrier("one");
    rank.communicator->all_reduce_sum(at::ones({3}), "two")->wait();
    std::string bytes(rank.world.rank == 0 ? 500 : 0, 'x');
    rank.host.broadcast("three", bytes, 0);
    std::array<CollectiveRecord, FlightRecorder::kCapacity> ring;
    ASSERT_EQ(rank.host.recorder().copy(ring), 3U);
    EXPECT_EQ(ring[0].operation_view(), "barrier");
    EXPECT_EQ(ring[1].operation_view(), "all_reduce");
    EXPECT_EQ(ring[1].bytes, 12);
    EXPECT_EQ(ring[2].bytes, -1);  // the ranks give different numbers
    for (int i = 0; i < 3; ++i) EXPECT_GT(ring[static_cast<std::size_t>(i)].ended, 0);
  });
}

TEST(FlightRecorder, ALeftOutCollectiveShowsInTheNextMessage) {
  try {
    run_thread_ranks(2, [](ThreadRank& rank) {
      if (rank.world.rank == 1) rank.host.recorder().started("all_reduce", "only here", 4);
      rank.host.barrier("control");
    });
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kDisagree);
    EXPECT_NE(std::string(error.what()).find("rank 0 has left out 1"), std::string::npos) << error.what();
  }
}

TEST(FlightRecorder, KnowsTheOwnWorkOfEveryRank) {
  run_thread_ranks(2, [](ThreadRank& rank) {
    rank.host.recorder().begin_step(1);
    if (rank.world.rank == 1) ::usleep(60'000);
    rank.host.barrier("first");
    ::usleep(5'000);
    rank.host.barrier("second");
    const std::vector<float> busy = rank.host.recorder().busy_by_rank();
    ASSERT_EQ(busy.size(), 2U);
    EXPECT_GE(busy[0], 0.005F);
    EXPECT_LT(busy[0], 0.055F);  // without the wait for rank 1
    EXPECT_GE(busy[1], 0.065F);
  });
}

// The dumps of ranks as if each had done `done`, "name" or "name?" for one that it still waits in.
RankDump dump_of(int rank, int ranks, const std::vector<std::string>& done, const std::string& reason = "stalled") {
  RankDump dump;
  dump.rank = rank;
  for (int i = 0; i < ranks; ++i) dump.hosts.push_back(i < 2 ? "node6" : "node7");
  dump.reason = reason;
  dump.now = 100;
  dump.sections = {{.name = "step", .seconds = 11, .limit = 10}};
  for (const std::string& each : done) {
    DumpedCollective collective;
    collective.sequence = dump.collectives.size() + 1;
    collective.operation = "all_reduce";
    collective.name = each.substr(0, each.find('?'));
    collective.bytes = 4;
    collective.started = static_cast<double>(collective.sequence);
    if (!each.ends_with('?')) collective.ended = collective.started + 0.5;
    dump.collectives.push_back(collective);
  }
  return dump;
}

HangReport report_of(const std::vector<RankDump>& dumps) {
  std::map<int, RankDump> by_rank;
  for (const RankDump& dump : dumps) by_rank.emplace(dump.rank, dump);
  return explain_hang(by_rank);
}

using Names = std::vector<std::string>;

TEST(HangReport, ARankWithoutADumpIsNamedAndWhatTheOthersWaitIn) {
  const HangReport report = report_of({dump_of(0, 3, {"a", "b?"}), dump_of(1, 3, {"a", "b?"})});
  EXPECT_EQ(report.suspects, Names{"rank 2 on node7"});
  EXPECT_NE(report.verdict.find("rank 2 on node7 gave no sign of life"), std::string::npos) << report.verdict;
  EXPECT_NE(report.verdict.find("ranks 0 1 wait in all_reduce \"b\" (collective 2)"), std::string::npos);
  EXPECT_EQ(report.ranks[2], "rank 2 on node7: no dump");
}

TEST(HangReport, ARankThatWasStoppedIsNamedThoughItWokeUp) {
  RankDump stopped = dump_of(1, 2, {"a"});
  stopped.asleep_seconds = 11;
  EXPECT_EQ(report_of({dump_of(0, 2, {"a", "b?"}), stopped}).suspects, Names{"rank 1 on node6"});
}

TEST(HangReport, ARankThatHasNotComeIsNamed) {
  const HangReport report =
      report_of({dump_of(0, 3, {"a", "b", "c?"}), dump_of(1, 3, {"a", "b"}), dump_of(2, 3, {"a", "b", "c?"})});
  EXPECT_EQ(report.suspects, Names{"rank 1 on node6"});
  EXPECT_NE(report.verdict.find("has not come to collective 3"), std::string::npos) << report.verdict;
}

TEST(HangReport, OfRanksOutOfStepTheFewerAreNamed) {
  const HangReport report =
      report_of({dump_of(0, 3, {"a", "b?"}), dump_of(1, 3, {"a", "c?"}), dump_of(2, 3, {"a", "b?"})});
  EXPECT_EQ(report.suspects, Names{"rank 1 on node6"});
  EXPECT_NE(report.verdict.find("desync at collective 2"), std::string::npos) << report.verdict;
}

TEST(HangReport, OfTwoRanksOutOfStepTheOneOnANewWayIsNamed) {
  // a, b, c is the usual order of a step; one of the ranks has left b out.
  const Names usual = {"a", "b", "c", "a", "b?"};
  const Names odd = {"a", "b", "c", "a", "c?"};
  EXPECT_EQ(report_of({dump_of(0, 2, usual), dump_of(1, 2, odd)}).suspects, Names{"rank 1 on node6"});
  EXPECT_EQ(report_of({dump_of(0, 2, odd), dump_of(1, 2, usual)}).suspects, Names{"rank 0 on node6"});
  // Without a precedent both are.
  EXPECT_EQ(report_of({dump_of(0, 2, {"a", "b?"}), dump_of(1, 2, {"a", "c?"})}).suspects.size(), 2U);
}

TEST(HangReport, ADifferentSizeIsOutOfStep) {
  RankDump other = dump_of(2, 3, {"a", "b?"});
  other.collectives[1].bytes = 8;
  const HangReport report = report_of({dump_of(0, 3, {"a", "b?"}), dump_of(1, 3, {"a", "b?"}), other});
  EXPECT_EQ(report.suspects, Names{"rank 2 on node7"});
  EXPECT_NE(report.verdict.find("of 8 bytes"), std::string::npos) << report.verdict;
}

TEST(HangReport, WhenAllHaveComeItIsTheNetwork) {
  const auto network = Names{"network between node6 and node7"};
  EXPECT_EQ(report_of({dump_of(0, 3, {"a?"}), dump_of(1, 3, {"a?"}), dump_of(2, 3, {"a?"})}).suspects, network);
  // One side got the data of the last exchange, the other did not.
  EXPECT_EQ(report_of({dump_of(0, 3, {"a", "b?"}), dump_of(1, 3, {"a", "b?"}), dump_of(2, 3, {"a?"})}).suspects,
            network);
}

TEST(HangReport, AWorkThatNobodyWaitsForIsItsOwn) {
  const HangReport report = report_of({dump_of(0, 1, {"a"})});
  EXPECT_EQ(report.suspects, Names{"rank 0 on node6"});
  EXPECT_NE(report.verdict.find("no rank waits for another"), std::string::npos) << report.verdict;
}

TEST(HangReport, DumpsThatASignalAskedForAccuseNobody) {
  const HangReport alive = report_of({dump_of(0, 2, {"a?"}, "signal"), dump_of(1, 2, {}, "signal")});
  EXPECT_TRUE(alive.suspects.empty());
  EXPECT_NE(alive.verdict.find("did not stall"), std::string::npos);
  // An earlier one does not speak for a rank that later left none.
  EXPECT_EQ(report_of({dump_of(0, 2, {"a", "b?"}), dump_of(1, 2, {"a"}, "signal")}).suspects, Names{"rank 1 on node6"});
}

TEST(HangDump, ReadsBackWhatItWrote) {
  const TempFolder folder;
  FlightRecorder recorder;
  recorder.begin_step(3);
  recorder.ended(recorder.started("all_reduce", "bucket \"0\"\n", 400));
  recorder.started("barrier", "end", -1);
  Sections sections;
  sections.set_limits(kLimits);
  sections.open(Section::kStep, 5);
  DumpWriter writer(folder.path(), 1, {"node6", "node\\7"});
  ASSERT_TRUE(writer.write("stalled", recorder, sections.all(7.5), 1.25));
  const Dumps dumps = read_dumps(folder.path());
  EXPECT_TRUE(dumps.damaged.empty());
  const RankDump& dump = dumps.by_rank.at(1);
  EXPECT_EQ(dump.reason, "stalled");
  EXPECT_EQ(dump.step, 3);
  EXPECT_EQ(dump.asleep_seconds, 1.25);
  EXPECT_EQ(dump.hosts, (Names{"node6", "node?7"}));
  ASSERT_EQ(dump.sections.size(), 1U);
  EXPECT_EQ(dump.sections[0].name, "step");
  EXPECT_EQ(dump.sections[0].seconds, 2.5);
  ASSERT_EQ(dump.collectives.size(), 2U);
  EXPECT_EQ(dump.collectives[0].name, "bucket ?0??");
  EXPECT_EQ(dump.collectives[0].bytes, 400);
  EXPECT_TRUE(dump.collectives[0].ended);
  EXPECT_FALSE(dump.collectives[1].bytes);
  EXPECT_FALSE(dump.collectives[1].ended);
}

TEST(HangDump, CannotBeWrittenIntoNoFolder) {
  FlightRecorder recorder;
  DumpWriter writer("/nowhere/hang", 0, {"node6"});
  EXPECT_FALSE(writer.write("stalled", recorder, {}, 0));
}

TEST(HangDump, EveryTruncationAndEveryChangedByteIsAnErrorOrADump) {
  const TempFolder folder;
  FlightRecorder recorder;
  recorder.started("barrier", "end", -1);
  DumpWriter writer(folder.path(), 0, {"node6"});
  ASSERT_TRUE(writer.write("stalled", recorder, {}, 0));
  const std::string text = read_file(writer.path);
  for (std::size_t size = 0; size + 2 < text.size(); ++size) {
    EXPECT_THROW((void)parse_dump(std::string_view(text).substr(0, size), "x"), Error) << size;
  }
  int read = 0;
  for (std::size_t at = 0; at < text.size(); ++at) {
    for (const char c : {'\0', '"', '{', ']', '9', '-', '\xff'}) {
      std::string changed = text;
      changed[at] = c;
      try {
        (void)explain_hang({{0, parse_dump(changed, "x")}});
        ++read;
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ExitCode::kData);
      }
    }
  }
  EXPECT_GT(read, 0);
}

TEST(Abort, ReturnsWhenTheWorkDoes) {
  bool done = false;
  EXPECT_TRUE(finishes_within(10, [&] { done = true; }));
  EXPECT_TRUE(done);
}

// A communicator whose abort never returns, as ncclCommAbort may.
TEST(AbortDeathTest, AnAbortThatNeverReturnsEndsTheProcess) {
  testing::GTEST_FLAG(death_test_style) = "threadsafe";
  const auto forever = [] {
    while (true) ::pause();
  };
  const auto reason = [](ExitCode code) { return std::make_exception_ptr(Error(code, "collective failed")); };
  const Stopwatch watch;
  EXPECT_EXIT(abort_or_end(0.2, forever, reason(ExitCode::kInternal), World{}, 4), ExitedWithCode(70),
              "error: step 4: collective failed|error: at step 4: collective failed");
  EXPECT_EXIT(
      {
        Watchdog::process().start();
        abort_or_end(0.2, forever, reason(ExitCode::kStalled), World{}, 4);
      },
      ExitedWithCode(86), "stalled: collective failed");
  EXPECT_LT(watch.seconds(), 20);
}

// The thread itself: a section past its deadline ends the process, with dump, record and line.
TEST(WatchdogDeathTest, EndsAStalledProcess) {
  testing::GTEST_FLAG(death_test_style) = "threadsafe";
  const std::filesystem::path folder = std::filesystem::temp_directory_path() / "dtrain-watchdog-test";
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  EXPECT_EXIT(
      {
        SingleHostComm host;
        Watchdog& watchdog = Watchdog::process();
        watchdog.start();
        watchdog.join_job(World{.host = "node6"}, host);
        watchdog.sections().set_limits({.init = 600, .step = 0.3, .eval = {}, .save = 600, .longest = 1800});
        watchdog.begin_run({.output_dir = folder, .hosts = {"node6"}, .record = [&](const auto&, const auto& suspects) {
                              std::ofstream(folder / "suspects") << suspects.at(0);
                            }});
        host.recorder().begin_step(9);
        host.barrier("before");
        const WatchSection section(Section::kStep);
        while (true) ::pause();
      },
      ExitedWithCode(86), "error: stalled at step 9: section step took more than 0.3 s .reliability.step_timeout.");
  EXPECT_EQ(read_file(folder / "suspects"), "rank 0 on node6");
  EXPECT_EQ(read_dumps(hang_folder(folder)).by_rank.at(0).reason, "stalled");
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace dtrain::test
