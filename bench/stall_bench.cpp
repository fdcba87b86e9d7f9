// What the watchdog and the flight recorder cost: stall_bench [COLLECTIVES_A_STEP STEP_MILLISECONDS]
// prints nanoseconds per collective and per section, the share of a core that the watchdog's thread takes, and from
// these the share of a step.
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <thread>

#include <fmt/format.h>
#include <sys/resource.h>

#include "dist/flight_recorder.h"
#include "dist/watchdog.h"

namespace {

constexpr int kRounds = 1'000'000;
constexpr double kSeconds = 5;

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
  const double collectives = argc > 1 ? std::atof(argv[1]) : 4;
  const double step_milliseconds = argc > 2 ? std::atof(argv[2]) : 2;
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
  Watchdog::process().start();
  const WatchSection open(Section::kStep);
  const double before = cpu_seconds();
  std::this_thread::sleep_for(std::chrono::duration<double>(kSeconds));
  const double thread = (cpu_seconds() - before) / kSeconds;
  const double share = (collective * collectives + section) * 1e-6 / step_milliseconds + thread;
  fmt::print("collective {:.0f} ns, section {:.0f} ns, watchdog's thread {:.4f} % of a core\n", collective, section,
             thread * 100);
  fmt::print("a step of {:g} ms with {:g} collectives: {:.3f} %\n", step_milliseconds, collectives, share * 100);
  return sum < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
