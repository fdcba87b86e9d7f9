// Watchdog: a thread that ends this process with code 86 when what it does takes too long, and says who was at fault.
//
// One per process, without a call of MPI or CUDA. It ticks ten times a second and looks at the open sections
// (dist/sections.h). When one is past its deadline, or another rank of the node has stalled, or such a rank of another
// node has left its dump, it writes this rank's dump (dist/hang_dump.h), and the lowest rank that can still do so lays
// the dumps of all ranks beside each other, has the suspects recorded and prints the one error line. All ranks leave
// with _exit(86) within two seconds, whatever their other threads are stuck in. Time in which this process was itself
// stopped does not count. SIGQUIT (request_dump) writes the dump and goes on.
//
//   Watchdog::process().start();
//   { const WatchSection section(Section::kSave); write(); }
//
// Thread-safe. Without start() sections cost as little and nothing watches them.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "dist/awake_time.h"
#include "dist/hang_dump.h"
#include "dist/host_comm.h"
#include "dist/sections.h"
#include "dist/world.h"

namespace dtrain {

// What a run tells the watchdog once its folder is known.
struct WatchedRun {
  std::filesystem::path output_dir;
  std::vector<std::string> hosts;  // by rank
  // Called by the rank that reports, from the watchdog's thread: writes run.json.
  std::function<void(const std::string& reason, const std::vector<std::string>& suspects)> record;
};

class Watchdog {
 public:
  // Of this process; never destroyed.
  static Watchdog& process();

  // Starts the thread, once. Before the session is known the rank is taken from the launcher's environment.
  void start();
  // The rest of the process's life: who it is, whose failures to follow. `host` stays valid until leave_job().
  void join_job(const World& world, HostComm& host);
  void leave_job();
  void begin_run(WatchedRun run);
  void end_run();

  [[nodiscard]] Sections& sections() { return sections_; }
  // Seconds this process has been awake: the clock of its sections.
  [[nodiscard]] double now() const { return monotonic_seconds() - asleep_.load(std::memory_order_relaxed); }

  // From a signal handler: write the dump at the next tick.
  void request_dump() noexcept { dump_requested_.store(true, std::memory_order_relaxed); }

  // Ends this process as stalled, with the dump and the report; `reason` is empty when another rank has it. Any thread
  // but the watchdog's. Without the thread: returns, and the caller ends the job.
  void end_stalled(const std::string& reason);

 private:
  Watchdog() = default;
  void run();
  void tick();
  bool write_dump(std::string_view reason);
  [[nodiscard]] bool other_rank_stalled(double time) const;
  [[nodiscard]] bool waits_in_collective() const;
  [[noreturn]] void fire(const std::string& reason);
  void wait_for_dumps() const;
  void report(const std::string& reason) const;
  [[nodiscard]] double recent_sleep() const;

  Sections sections_;
  std::atomic<bool> started_{false};
  std::atomic<bool> dump_requested_{false};
  std::atomic<double> asleep_{0};
  double last_sleep_ = 0;  // of the watchdog's thread, as the next
  double last_sleep_ended_ = 0;

  mutable std::mutex mutex_;
  World world_;  // guarded by mutex_, as all below
  HostComm* host_ = nullptr;
  std::optional<WatchedRun> run_;
  std::unique_ptr<DumpWriter> writer_;
  std::string folder_;                // output_dir/hang
  std::string mark_;                  // a file in it: tells the ranks of other nodes that one has stalled
  std::optional<std::string> asked_;  // end_stalled
};

// A sign of life: the deadline of the open sections of this kind begins anew.
inline void watch_progress(Section section) {
  Watchdog::process().sections().progress(section, Watchdog::process().now());
}

// A section of the process's watchdog, from construction to destruction.
class WatchSection {
 public:
  explicit WatchSection(Section section)
      : handle_(Watchdog::process().sections().open(section, Watchdog::process().now())) {}
  ~WatchSection() { Watchdog::process().sections().close(handle_, Watchdog::process().now()); }
  WatchSection(const WatchSection&) = delete;
  WatchSection& operator=(const WatchSection&) = delete;

 private:
  std::size_t handle_;
};

}  // namespace dtrain
