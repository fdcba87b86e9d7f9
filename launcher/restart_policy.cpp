#include "launcher/restart_policy.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <tuple>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "core/error.h"

namespace dtrain {
namespace {

constexpr int kSignalled = 128;  // codes above it: ended by a signal

bool is_final(int code) {
  switch (static_cast<ExitCode>(code)) {
    case ExitCode::kDone:
    case ExitCode::kUsage:
    case ExitCode::kData:
    case ExitCode::kDisagree:
    case ExitCode::kPreempted:
      return true;
    default:
      return false;
  }
}

std::string killed_text(int code) {
  if (code > kSignalled && code < kSignalled + 65) {
    return fmt::format("killed: exit code {}, signal {} ({})", code, code - kSignalled, ::strsignal(code - kSignalled));
  }
  return fmt::format("exit code {}, and the run could not say why", code);
}

bool is_own(int code) {
  return is_final(code) || code == static_cast<int>(ExitCode::kInternal) || code == static_cast<int>(ExitCode::kIo) ||
         code == static_cast<int>(ExitCode::kStalled);
}

// Nobody could say why: a rank or mpirun was killed.
bool was_killed(const AttemptEnd& end) { return !(end.record && end.record->exit) && !is_own(end.code); }

// The exit code that counts, and what happened.
std::pair<int, std::string> judged(const AttemptEnd& end) {
  if (end.record && end.record->exit) {
    const int code = *end.record->exit;
    std::string text = code == 0 ? "done" : fmt::format("exit code {}: {}", code, end.record->reason);
    if (!end.record->suspects.empty()) text += fmt::format(" (suspects: {})", fmt::join(end.record->suspects, ", "));
    return {code, text};
  }
  if (end.code == static_cast<int>(ExitCode::kDone)) {
    return {static_cast<int>(ExitCode::kInternal), "it left with exit code 0 but did not finish the run"};
  }
  return {end.code, was_killed(end) ? killed_text(end.code) : fmt::format("exit code {}", end.code)};
}

}  // namespace

Decision RestartPolicy::after(const AttemptEnd& end) {
  Decision decision;
  std::tie(decision.exit, decision.what) = judged(end);
  if (!(end.record && end.record->exit) && !end.first_gone.empty()) {
    decision.what +=
        fmt::format("; first to go: rank{} {}", end.first_gone.size() == 1 ? "" : "s", fmt::join(end.first_gone, ", "));
    for (const int rank : end.first_gone) decision.suspects.push_back(fmt::format("rank {}", rank));
  }
  const bool progress = end.step && (!step_ || *end.step > *step_);
  without_progress_ = progress ? 0 : without_progress_ + 1;
  if (end.step) step_ = end.step;
  if (is_final(decision.exit)) return decision;
  if (end.was_told_to_stop && was_killed(end)) {
    decision.exit = static_cast<int>(ExitCode::kPreempted);
    decision.what += "; it was to stop, but could not publish: the next run goes on from the newest checkpoint";
    return decision;
  }
  if (end.was_told_to_stop) {
    decision.what += "; not restarted, as it was to stop";
    return decision;
  }
  if (without_progress_ >= kAttemptsWithoutProgress) {
    decision.what += fmt::format("; no progress: {} attempts have published nothing new", without_progress_);
    return decision;
  }
  if (restarts_ >= options_.max_restarts) {
    decision.what += fmt::format("; --max-restarts {} reached", options_.max_restarts);
    return decision;
  }
  ++restarts_;
  decision.kind = Decision::Kind::kRestart;
  decision.pause = std::min(options_.pause * std::exp2(std::max(0, without_progress_ - 1)), kLongestPause);
  if (decision.exit == static_cast<int>(ExitCode::kIo)) {
    decision.pause = std::max(decision.pause, kShortestPauseAfterIoError);
  }
  return decision;
}

}  // namespace dtrain
