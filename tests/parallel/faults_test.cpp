// Jobs that go wrong: all ranks end within seconds, with the right exit code, one line of explanation and nothing else.
#include <array>
#include <cstdio>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <vector>

#include <sys/wait.h>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "core/clock.h"

namespace dtrain::test {
namespace {

struct Outcome {
  int code = -1;
  std::vector<std::string> lines;  // of standard output and standard error together
  double seconds = 0;
  [[nodiscard]] std::string text() const {
    std::string all;
    for (const std::string& line : lines) all += line + "\n";
    return all;
  }
};

std::set<std::string> names_in(const char* folder) {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) names.insert(entry.path().filename());
  return names;
}

Outcome run_job(int ranks, const std::string& scenario) {
  const std::string command = fmt::format("timeout -k 1 60 {} --allow-run-as-root --oversubscribe -np {} {} {} 2>&1",
                                          DTRAIN_MPIEXEC, ranks, DTRAIN_FAULT_RANK, scenario);
  Outcome outcome;
  const auto shared_before = names_in("/dev/shm");
  const Stopwatch watch;
  FILE* pipe = ::popen(command.c_str(), "r");
  if (pipe == nullptr) return outcome;
  std::array<char, 4096> line{};
  while (std::fgets(line.data(), line.size(), pipe) != nullptr) {
    std::string text = line.data();
    while (!text.empty() && text.back() == '\n') text.pop_back();
    if (!text.empty()) outcome.lines.push_back(text);
  }
  const int status = ::pclose(pipe);
  outcome.seconds = watch.seconds();
  outcome.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  // Other programs may come and go in /dev/shm; what stays must not be ours.
  for (const std::string& name : names_in("/dev/shm")) {
    EXPECT_TRUE(shared_before.count(name) == 1 || name.find("dtrain") == std::string::npos) << name;
  }
  return outcome;
}

// From the failure to the end of all ranks; start and end of a job cost what a job without failure costs, on this
// machine at this time.
constexpr double kLongestEnd = 5;
double allowed_seconds(int ranks) {
  static std::map<int, double> of_a_fine_job;
  if (of_a_fine_job.count(ranks) == 0) of_a_fine_job[ranks] = run_job(ranks, "fine").seconds;
  return kLongestEnd + 3 * of_a_fine_job[ranks];
}

void expect_one_line(int ranks, const std::string& scenario, int code, const std::string& part) {
  const double allowed = allowed_seconds(ranks);
  const Outcome outcome = run_job(ranks, scenario);
  EXPECT_EQ(outcome.code, code) << outcome.text();
  ASSERT_EQ(outcome.lines.size(), 1U) << outcome.text();
  EXPECT_NE(outcome.lines[0].find(part), std::string::npos) << outcome.text();
  EXPECT_LT(outcome.seconds, allowed);
}

class Faults : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Ranks, Faults, testing::Values(2, 4));

TEST_P(Faults, NoneIsSilent) {
  const Outcome outcome = run_job(GetParam(), "fine");
  EXPECT_EQ(outcome.code, 0);
  EXPECT_EQ(outcome.text(), "");
}
TEST_P(Faults, OneRankThrowsWhileOthersReduce) {
  expect_one_line(GetParam(), "throw-one", 65, fmt::format("error: rank {} cannot", GetParam() - 1));
}
TEST_P(Faults, OneRankThrowsWhileOtherNodesReduce) {
  expect_one_line(GetParam(), "throw-one-nodes", 65, fmt::format("error: rank {} cannot", GetParam() - 1));
}
TEST_P(Faults, OneRankThrowsWhileOthersWaitForIt) {
  expect_one_line(GetParam(), "throw-one-host", 74, "error: the disk is full");
}
TEST_P(Faults, AllRanksThrow) { expect_one_line(GetParam(), "throw-all", 64, "error: unknown key"); }
TEST_P(Faults, RanksDisagree) { expect_one_line(GetParam(), "disagree", 66, "seed"); }
TEST_P(Faults, DifferentCollectives) {
  expect_one_line(GetParam(), "different-collectives", 66, "\"bucket 1\" of 40 bytes");
}
TEST_P(Faults, RankMissingFromACollective) { expect_one_line(GetParam(), "stall-collective", 86, "s for rank"); }
TEST_P(Faults, RankMissingFromAMessage) {
  expect_one_line(GetParam(), "stall-host", 86, "s in barrier \"evaluation\"");
}
TEST_P(Faults, PreemptionIsSilent) {
  const Outcome outcome = run_job(GetParam(), "preempted");
  EXPECT_EQ(outcome.code, 75);
  EXPECT_EQ(outcome.text(), "");
}
// mpirun explains this one itself; nothing of ours may stay behind.
TEST_P(Faults, KilledRank) {
  const double allowed = allowed_seconds(GetParam());
  const Outcome outcome = run_job(GetParam(), "killed");
  EXPECT_EQ(outcome.code, 137) << outcome.text();
  EXPECT_LT(outcome.seconds, allowed);
}

}  // namespace
}  // namespace dtrain::test
