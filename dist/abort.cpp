#include "dist/abort.h"

#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

#include "dist/failure.h"
#include "dist/mpi_session.h"
#include "dist/watchdog.h"

namespace dtrain {

bool finishes_within(double seconds, std::function<void()> work) {
  struct State {
    std::mutex mutex;
    std::condition_variable changed;
    bool done = false;
  };
  const auto state = std::make_shared<State>();
  std::thread([state, work = std::move(work)] {
    work();
    const std::lock_guard lock(state->mutex);
    state->done = true;
    state->changed.notify_all();
  }).detach();
  std::unique_lock lock(state->mutex);
  return state->changed.wait_for(lock, std::chrono::duration<double>(seconds), [&] { return state->done; });
}

void fail_job(const std::exception& reason, const World& world, std::int64_t step) {
  const Error error = as_error(reason);
  if (error.code() == ExitCode::kStalled) {
    Watchdog::process().end_stalled(dynamic_cast<const PeerFailed*>(&reason) != nullptr ? "" : error.what());
  }
  if (dynamic_cast<const PeerFailed*>(&reason) == nullptr && report_failure(error.code())) {
    const std::string text = failure_text(error, world, step);
    std::fwrite(text.data(), 1, text.size(), stderr);
  }
  end_job(error.code());
}

void abort_or_end(double seconds, std::function<void()> abort, const std::exception_ptr& reason, const World& world,
                  std::int64_t step) {
  if (finishes_within(seconds, std::move(abort))) return;
  try {
    std::rethrow_exception(reason);
  } catch (const std::exception& exception) {
    fail_job(exception, world, step);
  }
}

}  // namespace dtrain
