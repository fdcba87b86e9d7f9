#include "launcher/restart_policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace dtrain {
namespace {

using testing::HasSubstr;
using Kind = Decision::Kind;

RunRecord record_of(const std::string& state, std::optional<int> exit, const std::string& reason = "") {
  RunRecord record;
  record.state = state;
  record.exit = exit;
  record.reason = reason;
  return record;
}

Decision after_one(const AttemptEnd& end) { return RestartPolicy({}, std::nullopt).after(end); }

TEST(RestartPolicy, FinalCodesAreNotRestarted) {
  for (const int code : {64, 65, 66}) {
    const Decision decision = after_one({.code = code, .record = {}, .step = 5});
    EXPECT_EQ(decision.kind, Kind::kFinish);
    EXPECT_EQ(decision.exit, code);
  }
  EXPECT_EQ(after_one({.code = 0, .record = record_of("done", 0), .step = 5}).exit, 0);
  EXPECT_EQ(after_one({.code = 75, .record = record_of("preempted", 75), .step = 5}).exit, 75);
}

TEST(RestartPolicy, TheRecordCountsNotTheCodeOfMpirun) {
  // mpirun was killed after the run had finished, and ends with 1 whatever the ranks do on SIGTERM.
  EXPECT_EQ(after_one({.code = 137, .record = record_of("done", 0), .step = 5}).exit, 0);
  EXPECT_EQ(after_one({.code = 1, .record = record_of("preempted", 75), .step = 5}).exit, 75);
  const Decision data = after_one({.code = 1, .record = record_of("failed", 65, "a.jsonl:3 is damaged"), .step = 5});
  EXPECT_EQ(data.kind, Kind::kFinish);
  EXPECT_EQ(data.exit, 65);
  EXPECT_THAT(data.what, HasSubstr("a.jsonl:3 is damaged"));
}

TEST(RestartPolicy, SuccessWithoutTheRecordIsNone) {
  for (const auto& record : {std::optional<RunRecord>(), std::optional(record_of("running", std::nullopt))}) {
    const Decision decision = after_one({.code = 0, .record = record, .step = 5});
    EXPECT_EQ(decision.kind, Kind::kRestart);
    EXPECT_EQ(decision.exit, 70);
  }
}

TEST(RestartPolicy, WorthRestarting) {
  for (const int code : {1, 70, 74, 86, 134, 137, 139, 143}) {
    const Decision decision = after_one({.code = code, .record = record_of("running", std::nullopt), .step = 5});
    EXPECT_EQ(decision.kind, Kind::kRestart) << code;
    EXPECT_EQ(decision.pause, code == 74 ? 10 : 1) << code;
    const Decision told = after_one({.code = code, .record = {}, .step = 5, .was_told_to_stop = true});
    EXPECT_EQ(told.kind, Kind::kFinish) << code;
    // A run that was killed on its way out is to be started again like one that has published.
    EXPECT_EQ(told.exit, code == 70 || code == 74 || code == 86 ? code : 75) << code;
  }
  EXPECT_THAT(after_one({.code = 137, .record = {}, .step = 5}).what, HasSubstr("signal 9 (Killed)"));
}

TEST(RestartPolicy, TheFirstToGoIsNamedUnlessTheRunKnowsBetter) {
  const AttemptEnd killed{.code = 137, .record = record_of("running", std::nullopt), .step = 5, .first_gone = {2}};
  EXPECT_THAT(after_one(killed).what, HasSubstr("first to go: rank 2"));
  EXPECT_THAT(after_one(killed).suspects, testing::ElementsAre("rank 2"));
  const AttemptEnd stalled{.code = 86, .record = record_of("failed", 86, "stalled"), .step = 5, .first_gone = {2}};
  EXPECT_THAT(after_one(stalled).suspects, testing::IsEmpty());
}

TEST(RestartPolicy, ThreeAttemptsWithoutProgress) {
  RestartPolicy policy({.max_restarts = 100, .pause = 2}, 4);
  EXPECT_EQ(policy.after({.code = 137, .record = {}, .step = 4}).pause, 2);
  EXPECT_EQ(policy.after({.code = 137, .record = {}, .step = 4}).pause, 4);
  // A newer checkpoint begins the count anew.
  EXPECT_EQ(policy.after({.code = 137, .record = {}, .step = 8}).pause, 2);
  EXPECT_EQ(policy.after({.code = 137, .record = {}, .step = 8}).kind, Kind::kRestart);
  EXPECT_EQ(policy.after({.code = 137, .record = {}, .step = 8}).kind, Kind::kRestart);
  const Decision last = policy.after({.code = 137, .record = {}, .step = 8});
  EXPECT_EQ(last.kind, Kind::kFinish);
  EXPECT_EQ(last.exit, 137);
  EXPECT_THAT(last.what, HasSubstr("no progress"));
  EXPECT_EQ(policy.restarts(), 5);
}

TEST(RestartPolicy, TheNumberOfRestartsIsLimited) {
  RestartPolicy policy({.max_restarts = 2, .pause = 1}, std::nullopt);
  EXPECT_EQ(policy.after({.code = 70, .record = {}, .step = 1}).kind, Kind::kRestart);
  EXPECT_EQ(policy.after({.code = 70, .record = {}, .step = 2}).kind, Kind::kRestart);
  const Decision last = policy.after({.code = 70, .record = {}, .step = 3});
  EXPECT_EQ(last.kind, Kind::kFinish);
  EXPECT_THAT(last.what, HasSubstr("--max-restarts 2"));
}

}  // namespace
}  // namespace dtrain
