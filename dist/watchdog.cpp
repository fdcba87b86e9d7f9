#include "dist/watchdog.h"

#include <csignal>
#include <cstdlib>
#include <cstring>
#include <thread>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/file.h"
#include "dist/hang_report.h"
#include "dist/mpi_session.h"

namespace dtrain {
namespace fs = std::filesystem;
namespace {

constexpr double kPeriodSeconds = 0.1;
// A tick that comes later than this was no tick of a running process.
constexpr double kLongestGapSeconds = 3 * kPeriodSeconds;
// A process that was stopped so recently, for so long, may itself be what the others wait for.
constexpr double kRecentSeconds = 3;
// Between a stall and the end: time for the dumps of the other ranks, for the report, for the launcher, and for all of
// it even when a file system or a library does not answer.
constexpr double kDumpSeconds = 0.5;
constexpr double kLauncherSeconds = 0.7;
constexpr double kLastResortSeconds = 1.7;

constexpr int kStalledCode = static_cast<int>(ExitCode::kStalled);

void sleep_for(double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }

void print_raw(std::string_view text) noexcept {
  while (!text.empty()) {
    const ssize_t count = ::write(STDERR_FILENO, text.data(), text.size());
    if (count <= 0) return;
    text.remove_prefix(static_cast<std::size_t>(count));
  }
}

void leave_now(int /*signal*/) { ::_exit(kStalledCode); }

// Whatever happens from now on, this process ends.
void arm_last_resort() {
  struct sigaction action = {};
  action.sa_handler = leave_now;
  ::sigaction(SIGALRM, &action, nullptr);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGALRM);
  ::pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
  itimerval timer = {};
  timer.it_value.tv_sec = static_cast<time_t>(kLastResortSeconds);
  timer.it_value.tv_usec =
      static_cast<suseconds_t>((kLastResortSeconds - static_cast<double>(timer.it_value.tv_sec)) * 1e6);
  ::setitimer(ITIMER_REAL, &timer, nullptr);
}

std::string environment(std::initializer_list<const char*> names) {
  for (const char* name : names) {
    if (const char* value = std::getenv(name); value != nullptr && *value != '\0') return value;
  }
  return "0";
}

std::string_view setting_of(Section section) {
  switch (section) {
    case Section::kInit:
      return "DTRAIN_INIT_TIMEOUT, an environment variable";
    case Section::kLoad:
      return "reliability.init_timeout";
    case Section::kStep:
      return "reliability.step_timeout";
    case Section::kEval:
      return "reliability.eval_timeout";
    case Section::kSave:
    case Section::kFinalize:
      return "reliability.save_timeout";
  }
  return "";
}

bool exists(const std::string& path) { return ::access(path.c_str(), F_OK) == 0; }

// Whether this process is the first of its launcher on this machine to ask. For ranks that have no memory in common
// yet: the name of a socket belongs to whoever takes it first, until it ends.
bool first_to_speak() {
  const int fd = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  const auto end =
      fmt::format_to_n(address.sun_path + 1, sizeof(address.sun_path) - 1, "dtrain-stalled-{}", ::getppid()).out;
  const auto size = static_cast<socklen_t>(end - reinterpret_cast<char*>(&address));
  return fd < 0 || ::bind(fd, reinterpret_cast<const sockaddr*>(&address), size) == 0;
}

// The dump of `rank` when it has ended because of a stall.
std::optional<RankDump> stalled_dump(const fs::path& folder, int rank) {
  try {
    const fs::path path = folder / dump_name(rank);
    if (!exists(path.string())) return std::nullopt;
    RankDump dump = parse_dump(read_file(path), path.string());
    if (dump.reason == "stalled") return dump;
  } catch (const Error&) {  // damaged, or gone: as none
  }
  return std::nullopt;
}

}  // namespace

Watchdog& Watchdog::process() {
  static auto* watchdog = new Watchdog;
  return *watchdog;
}

void Watchdog::start() {
  if (started_.exchange(true)) return;
  SectionLimits limits;
  if (const double seconds = std::atof(environment({"DTRAIN_INIT_TIMEOUT"}).c_str()); seconds > 0)
    limits.init = seconds;
  sections_.set_limits(limits);
  {
    const std::lock_guard lock(mutex_);
    world_.rank = std::atoi(environment({"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"}).c_str());
    std::array<char, 256> name{};
    if (::gethostname(name.data(), name.size() - 1) == 0) world_.host = name.data();
  }
  // The thread takes no signal of the program's.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  std::thread([this] { run(); }).detach();
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void Watchdog::join_job(const World& world, HostComm& host) {
  const std::lock_guard lock(mutex_);
  world_ = world;
  host_ = &host;
}

void Watchdog::leave_job() {
  const std::lock_guard lock(mutex_);
  host_ = nullptr;
}

void Watchdog::begin_run(WatchedRun run) {
  const std::lock_guard lock(mutex_);
  const fs::path folder = hang_folder(run.output_dir);
  folder_ = folder.string();
  mark_ = (folder / "stalled").string();
  writer_ = std::make_unique<DumpWriter>(folder, world_.rank, run.hosts);
  run_ = std::move(run);
}

void Watchdog::end_run() {
  const std::lock_guard lock(mutex_);
  run_.reset();
  writer_.reset();
}

void Watchdog::end_stalled(const std::string& reason) {
  if (!started_) return;
  {
    const std::lock_guard lock(mutex_);
    asked_ = reason;
  }
  sleep_for(kPeriodSeconds + kLastResortSeconds + 1);
  ::_exit(kStalledCode);
}

void Watchdog::run() {
  AwakeTime awake(monotonic_seconds(), kLongestGapSeconds);
  while (true) {
    sleep_for(kPeriodSeconds);
    const double before = awake.asleep();
    awake.advance(monotonic_seconds());
    asleep_.store(awake.asleep(), std::memory_order_relaxed);
    if (awake.asleep() > before) {
      const double now = monotonic_seconds();
      last_sleep_ = awake.asleep() - before + (now - last_sleep_ended_ < kRecentSeconds ? last_sleep_ : 0);
      last_sleep_ended_ = now;
    }
    tick();
  }
}

double Watchdog::recent_sleep() const {
  return monotonic_seconds() - last_sleep_ended_ < kRecentSeconds ? last_sleep_ : 0;
}

bool Watchdog::waits_in_collective() const { return host_ != nullptr && host_->recorder().under_way(); }

bool Watchdog::other_rank_stalled(double time) const {
  if (host_ != nullptr && host_->reported_failure() == ExitCode::kStalled) return true;
  // Asking the file system is not for every tick of a healthy run.
  const bool asks = sections_.any_slow(time) || (sections_.none_open() && waits_in_collective());
  return run_ && asks && exists(mark_);
}

void Watchdog::tick() {
  const std::unique_lock lock(mutex_);
  const double time = now();
  if (asked_) fire(*asked_);
  if (other_rank_stalled(time)) fire("");
  if (const auto open = sections_.expired(time, waits_in_collective())) {
    fire(fmt::format("section {} took more than {:g} s ({})", section_name(open->section), open->limit,
                     setting_of(open->section)));
  }
  if (dump_requested_.exchange(false, std::memory_order_relaxed) && writer_) {
    const bool written = write_dump("signal");
    print_raw(written ? fmt::format("flight recorder of rank {} written: {}\n", world_.rank, writer_->path)
                      : fmt::format("cannot write {}: {}\n", writer_->path, std::strerror(errno)));
  }
}

bool Watchdog::write_dump(std::string_view reason) {
  ::mkdir(folder_.c_str(), 0777);
  return writer_->write(reason, host_->recorder(), sections_.all(now()), recent_sleep());
}

void Watchdog::wait_for_dumps() const {
  const int ranks = static_cast<int>(run_->hosts.size());
  int seen = 0;
  for (const double end = monotonic_seconds() + kDumpSeconds; monotonic_seconds() < end; sleep_for(0.02)) {
    while (seen < ranks && stalled_dump(folder_, seen)) ++seen;
    if (seen == ranks) return;
  }
}

void Watchdog::report(const std::string& reason) const {
  std::string text = reason;
  std::vector<std::string> suspects;
  try {
    const Dumps dumps = read_dumps(folder_);
    if (!dumps.by_rank.empty()) {
      HangReport found = explain_hang(dumps.by_rank);
      text += (text.empty() ? "" : ": ") + found.verdict;
      suspects = std::move(found.suspects);
    }
  } catch (const Error& error) {
    text += fmt::format(" ({})", error.what());
  }
  const std::int64_t step = host_->recorder().step();
  const std::string line =
      fmt::format("error: stalled{}: {}\nhint: `dtrain explain {}` shows what each rank was doing\n",
                  step > 0 ? fmt::format(" at step {}", step) : "", text, run_->output_dir.string());
  print_raw(line);
  if (run_->record) run_->record(text, suspects);
}

// Called with the mutex held, which is never released: what the main thread would still take away stays.
void Watchdog::fire(const std::string& reason) {
  arm_last_resort();
  const bool first = host_ == nullptr ? first_to_speak() : host_->report_failure(ExitCode::kStalled);
  bool reports = first;
  if (run_) {
    write_dump("stalled");
    // The ranks of this node have been told by the report of the failure.
    const int mark = ::open(mark_.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    if (mark >= 0) ::close(mark);
    // One that was stopped has nothing to say about the others.
    if (recent_sleep() >= kStoppedSeconds && reason.empty()) ::_exit(kStalledCode);
    wait_for_dumps();
    reports = true;
    for (int lower = 0; lower < world_.rank && reports; ++lower) {
      const std::optional<RankDump> dump = stalled_dump(folder_, lower);
      reports = !dump || dump->asleep_seconds >= kStoppedSeconds;
    }
    if (reports) report(reason);
  } else if (first) {
    print_raw(fmt::format(
        "error: rank {} on {} stalled: {}{}\nhint: see that all hosts reach each other (firewall, "
        "OMPI_MCA_btl_tcp_if_include) and that no rank is stopped\n",
        world_.rank, world_.host, reason, world_.rank != 0 ? ": rank 0 or the network to it does not answer" : ""));
  }
  if (reports) std::thread([] { ask_launcher_to_end(ExitCode::kStalled); }).detach();
  sleep_for(kLauncherSeconds);
  ::_exit(kStalledCode);
}

}  // namespace dtrain
