// RestartPolicy: what a supervisor does after an attempt of a run has ended. Pure: no processes, no files, no clock.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "trainer/checkpoint/run_json.h"

namespace dtrain {

// How an attempt ended, as its supervisor sees it.
struct AttemptEnd {
  int code = 0;                      // of mpirun, srun or the program: its exit code, or 128 and the signal's number
  std::optional<RunRecord> record;   // run.json, if this attempt has written it
  std::optional<std::int64_t> step;  // of the newest published checkpoint afterwards
  bool was_told_to_stop = false;     // the supervisor has passed a signal on to it
  std::vector<int> first_gone = {};  // ranks that were gone before the others, where that could be seen
};

struct Decision {
  enum class Kind { kFinish, kRestart };
  Kind kind = Kind::kFinish;
  int exit = 0;                         // the exit code of the attempt: with kFinish that of the supervisor
  double pause = 0;                     // with kRestart: seconds before the next attempt
  std::string what{};                   // what happened, for one line
  std::vector<std::string> suspects{};  // "rank 1": the first to go, of an attempt that could not say why it ended
};

struct RestartOptions {
  int max_restarts = 10;
  double pause = 1;  // seconds before the first restart; doubles, up to kLongestPause, while nothing new is published
};

class RestartPolicy {
 public:
  static constexpr int kAttemptsWithoutProgress = 3;
  static constexpr double kLongestPause = 60;
  // A full or failing disk needs somebody, or time.
  static constexpr double kShortestPauseAfterIoError = 10;

  // `step`: of the newest checkpoint before the first attempt.
  RestartPolicy(RestartOptions options, std::optional<std::int64_t> step) : options_(options), step_(step) {}

  // run.json decides; the code of mpirun, which is 1 or 137 for many reasons, only where this attempt wrote none. Exit
  // code 0 is success only if run.json says "done".
  //   0, 64, 65, 66, 75              finish with that code
  //   killed, told to stop           finish with 75: to be started again, from the newest checkpoint
  //   70, 74, 86, killed, unknown    restart, unless told to stop, or max_restarts are used up, or the last three
  //                                  attempts have published nothing new
  [[nodiscard]] Decision after(const AttemptEnd& end);

  [[nodiscard]] int restarts() const noexcept { return restarts_; }

 private:
  RestartOptions options_;
  std::optional<std::int64_t> step_;
  int restarts_ = 0;
  int without_progress_ = 0;
};

}  // namespace dtrain
