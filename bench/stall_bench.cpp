// What it costs to stop together and never to hang: stall_bench [STEP_MILLISECONDS STATE_MEGABYTES]
// prints what the flight recorder, the watchdog's thread, the control word of a step (under mpirun between its ranks)
// and the digest of weights and optimizer after every 100 steps take, and from these the share of a step with six
// collectives. Defaults: a step of 100 ms, and MiniLM with AdamW: 273 MB.
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include <fmt/format.h>
#include <sys/resource.h>

#include "core/clock.h"
#include "core/digest.h"
#include "dist/flight_recorder.h"
#include "dist/mpi_session.h"
#include "dist/watchdog.h"

namespace {

constexpr int kRounds = 1'000'000;
constexpr double kSeconds = 5;
constexpr int kExchanges = 2000;
constexpr double kCollectives = 6;
constexpr double kCheckInterval = 100;

double cpu_seconds() {
  rusage usage = {};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

template <class Work>
double nanoseconds(const Work& work) {
  const double before = cpu_seconds();
  for (int i = 0; i < kRounds; ++i) work();
  return (cpu_seconds() - before) / kRounds * 1e9;
}

}  // namespace

int main(int argc, char** argv) {
  using namespace dtrain;
  const double step_milliseconds = argc > 1 ? std::atof(argv[1]) : 100;
  const std::size_t megabytes = argc > 2 ? static_cast<std::size_t>(std::atoi(argv[2])) : 273;
  MpiSession session;

  FlightRecorder recorder;
  recorder.begin_step(1);
  double sum = 0;
  const double collective = nanoseconds([&] {
    sum += recorder.busy_seconds();
    const std::uint64_t sequence = recorder.started("all_reduce", "bucket 0", 1024);
    const FlightRecorder::Wait wait(recorder);
    recorder.ended(sequence);
  });
  const double section = nanoseconds([] { const WatchSection each(Section::kStep); });

  // 40 bytes, as the control word has.
  const std::string word(40, 'w');
  session.host().barrier("begin");
  Stopwatch watch;
  for (int i = 0; i < kExchanges; ++i) sum += static_cast<double>(session.host().all_gather("word", word).size());
  const double exchange = watch.seconds() / kExchanges * 1e3;  // ms

  const std::vector<std::byte> state(megabytes * 1'000'000, std::byte{1});
  std::vector<double> checks;
  for (int i = 0; i < 5; ++i) {
    watch.restart();
    sum += static_cast<double>(digest_of(state).size());
    checks.push_back(watch.seconds() * 1e3);
  }
  std::sort(checks.begin(), checks.end());
  const double check = checks[checks.size() / 2];

  Watchdog::process().start();
  double thread = 0;
  {
    const WatchSection open(Section::kStep);
    const double before = cpu_seconds();
    std::this_thread::sleep_for(std::chrono::duration<double>(kSeconds));
    thread = (cpu_seconds() - before) / kSeconds;
  }
  if (session.world().is_first()) {
    const auto percent = [&](double milliseconds) { return 100 * milliseconds / step_milliseconds; };
    const double recording = percent((collective * kCollectives + section) * 1e-6);
    const double checking = percent(check / kCheckInterval);
    fmt::print("flight recorder  {:8.0f} ns a collective, {:.0f} ns a section   {:.4f} %\n", collective, section,
               recording);
    fmt::print("watchdog         its thread                             {:.4f} % of a core\n", 100 * thread);
    fmt::print("control word     {:8.3f} ms, {} ranks                     {:.4f} %\n", exchange,
               session.world().world_size, percent(exchange));
    fmt::print("digest check     {:8.1f} ms for {} MB, every {:g} steps    {:.4f} %\n", check, megabytes,
               kCheckInterval, checking);
    fmt::print("of a step of {:g} ms with {:g} collectives: {:.3f} %\n", step_milliseconds, kCollectives,
               recording + 100 * thread + percent(exchange) + checking);
  }
  session.finish();
  return sum < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
