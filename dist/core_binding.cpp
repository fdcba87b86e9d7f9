#include "dist/core_binding.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <tuple>

#include <sched.h>
#include <unistd.h>

#include <fmt/ranges.h>

#include "core/error.h"

namespace dtrain {
namespace {

constexpr int kMostCpus = 8192;

int number_in_file(const std::string& path, int otherwise) {
  std::ifstream file(path);
  int value = otherwise;
  return file >> value ? value : otherwise;
}

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string() : std::string(value);
}

// The processors that `process` (0: this thread) may run on; empty when it cannot be asked.
std::vector<int> affinity_of(pid_t process) {
  std::unique_ptr<cpu_set_t, void (*)(cpu_set_t*)> set(CPU_ALLOC(kMostCpus), [](cpu_set_t* s) { CPU_FREE(s); });
  const std::size_t bytes = CPU_ALLOC_SIZE(kMostCpus);
  CPU_ZERO_S(bytes, set.get());
  std::vector<int> cpus;
  if (::sched_getaffinity(process, bytes, set.get()) != 0) return cpus;
  for (int i = 0; i < kMostCpus; ++i) {
    if (CPU_ISSET_S(static_cast<std::size_t>(i), bytes, set.get())) cpus.push_back(i);
  }
  return cpus;
}

void set_affinity_of_all_threads(const std::vector<int>& cpus) {
  std::unique_ptr<cpu_set_t, void (*)(cpu_set_t*)> set(CPU_ALLOC(kMostCpus), [](cpu_set_t* s) { CPU_FREE(s); });
  const std::size_t bytes = CPU_ALLOC_SIZE(kMostCpus);
  CPU_ZERO_S(bytes, set.get());
  for (const int cpu : cpus) CPU_SET_S(static_cast<std::size_t>(cpu), bytes, set.get());
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/task")) {
    const int thread = std::atoi(entry.path().filename().c_str());
    // A thread that ended meanwhile is no error.
    if (::sched_setaffinity(thread, bytes, set.get()) != 0 && errno != ESRCH) {
      throw system_error(fmt::format("cannot bind to cores {}", fmt::join(cpus, ",")), errno);
    }
  }
}

// The nearest ancestor that starts ranks: its cores are the job's, while the rank's own may have been narrowed.
pid_t launching_process() {
  static constexpr const char* kLaunchers[] = {"mpirun", "orterun", "mpiexec", "orted", "prterun", "prte", "prted"};
  pid_t process = ::getppid();
  for (int depth = 0; depth < 16 && process > 1; ++depth) {
    std::ifstream name_file(fmt::format("/proc/{}/comm", process));
    std::string name;
    std::getline(name_file, name);
    if (std::find(std::begin(kLaunchers), std::end(kLaunchers), name) != std::end(kLaunchers)) return process;
    // "pid (comm) state ppid ...": comm may contain anything but ends at the last parenthesis.
    std::ifstream stat_file(fmt::format("/proc/{}/stat", process));
    std::string line;
    std::getline(stat_file, line);
    const std::size_t end = line.rfind(')');
    if (end == std::string::npos || end + 4 >= line.size()) return 0;
    process = std::atoi(line.c_str() + end + 4);
  }
  return 0;
}

// Whether the user told mpirun how to bind; Open MPI 4 and 5 hand such options on in the environment.
bool binding_was_chosen() {
  for (const char* name :
       {"OMPI_MCA_hwloc_base_binding_policy", "OMPI_MCA_rmaps_base_mapping_policy", "OMPI_MCA_rmaps_rank_file_path",
        "PRTE_MCA_hwloc_default_binding_policy", "PRTE_MCA_rmaps_default_mapping_policy"}) {
    if (!environment(name).empty()) return true;
  }
  return false;
}

std::vector<Cpu> with_topology(const std::vector<int>& ids) {
  std::vector<Cpu> cpus;
  for (const int id : ids) {
    const std::string folder = fmt::format("/sys/devices/system/cpu/cpu{}/topology/", id);
    cpus.push_back({id, number_in_file(folder + "physical_package_id", 0), number_in_file(folder + "core_id", id)});
  }
  return cpus;
}

int chosen_threads(int otherwise) {
  const std::string text = environment("OMP_NUM_THREADS");
  int value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value > 0 ? value : otherwise;
}

}  // namespace

CoreShare fair_share(std::span<const Cpu> allowed, int index, int parts) {
  DTRAIN_CHECK(!allowed.empty() && parts > 0 && index >= 0 && index < parts, "share {} of {} of {} processors", index,
               parts, allowed.size());
  std::map<std::tuple<int, int>, std::vector<int>> cores;  // in order of package, then core
  for (const Cpu& cpu : allowed) cores[{cpu.package, cpu.core}].push_back(cpu.id);
  std::vector<std::vector<int>> in_order;
  for (auto& [place, ids] : cores) in_order.push_back(std::move(ids));

  const int count = static_cast<int>(in_order.size());
  int first = 0;
  int size = 1;
  if (parts >= count) {
    first = index % count;
  } else {
    const int extra = count % parts;
    size = count / parts + (index < extra ? 1 : 0);
    first = index * (count / parts) + std::min(index, extra);
  }
  CoreShare share;
  share.threads = size;
  for (int i = first; i < first + size; ++i) {
    const auto& ids = in_order[static_cast<std::size_t>(i)];
    share.cpus.insert(share.cpus.end(), ids.begin(), ids.end());
  }
  std::sort(share.cpus.begin(), share.cpus.end());
  return share;
}

CoreShare bind_cores(const World& world, HostComm& host, BindMode mode) {
  std::vector<int> cpus = affinity_of(0);
  if (mode == BindMode::kFair && !environment("OMPI_COMM_WORLD_SIZE").empty() && !binding_was_chosen()) {
    const pid_t launcher = launching_process();
    const std::vector<int> wide = launcher > 0 ? affinity_of(launcher) : std::vector<int>();
    if (!wide.empty()) cpus = wide;
  }
  const auto rows = host.all_gather("cores", fmt::format("{} {}", world.node_rank, fmt::join(cpus, ",")));
  const std::string& mine = rows[static_cast<std::size_t>(world.rank)];
  const std::string node = fmt::format("{} ", world.node_rank);
  const bool same = std::all_of(rows.begin(), rows.end(),
                                [&](const std::string& row) { return !row.starts_with(node) || row == mine; });
  const std::vector<Cpu> allowed = with_topology(cpus);
  CoreShare share = mode == BindMode::kFair && same ? fair_share(allowed, world.local_rank, world.local_size)
                                                    : fair_share(allowed, 0, 1);
  if (mode == BindMode::kFair) set_affinity_of_all_threads(share.cpus);
  share.threads = chosen_threads(share.threads);
  return share;
}

}  // namespace dtrain
