#include "dist/mpi_session.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <set>
#include <thread>
#include <vector>

#include <dlfcn.h>
#include <unistd.h>

#include "dist/framed_host_comm.h"
#include "dist/mpi_check.h"
#include "dist/mpi_host_comm.h"
#include "dist/shared_memory.h"

namespace dtrain {
namespace {

using std::chrono::milliseconds;

// What end_job() needs from any thread and after any exception; set by the session, never reset.
struct ProcessState {
  FailureFlag own_flag;
  std::atomic<FailureFlag*> flag{&own_flag};
  std::atomic<int> rank{0};
  std::atomic<int> node_rank{0};
  std::shared_ptr<SharedMemory> shared;  // keeps the node's flag mapped
};

// Never destroyed: a watchdog thread may end the job while main returns.
ProcessState& process_state() {
  static auto* state = new ProcessState;
  return *state;
}

int to_number(const std::string& text) {
  int value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string() : std::string(value);
}

bool mpi_is_running() {
  int started = 0;
  int ended = 0;
  MPI_Initialized(&started);
  MPI_Finalized(&ended);
  return started != 0 && ended == 0;
}

World find_world() {
  World world;
  MPI_Comm_rank(MPI_COMM_WORLD, &world.rank);
  MPI_Comm_size(MPI_COMM_WORLD, &world.world_size);
  MPI_Comm node = MPI_COMM_NULL;
  check_mpi(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, world.rank, MPI_INFO_NULL, &node),
            "MPI_Comm_split_type");
  MPI_Comm_rank(node, &world.local_rank);
  MPI_Comm_size(node, &world.local_size);
  int lowest = world.rank;
  MPI_Bcast(&lowest, 1, MPI_INT, 0, node);
  MPI_Comm_free(&node);
  std::vector<int> all(static_cast<std::size_t>(world.world_size));
  MPI_Allgather(&lowest, 1, MPI_INT, all.data(), 1, MPI_INT, MPI_COMM_WORLD);
  const std::set<int> nodes(all.begin(), all.end());
  world.num_nodes = static_cast<int>(nodes.size());
  world.node_rank = static_cast<int>(std::distance(nodes.begin(), nodes.find(lowest)));
  return world;
}

}  // namespace

bool ask_launcher_to_end(ExitCode code) noexcept {
  // MPI_Abort without its banner.
  void* library = dlopen("libpmix.so.2", RTLD_NOW | RTLD_NOLOAD);
  if (library == nullptr) return false;
  using Abort = int (*)(int status, const char* message, void* processes, std::size_t count);
  const auto abort = reinterpret_cast<Abort>(dlsym(library, "PMIx_Abort"));
  return abort != nullptr && abort(static_cast<int>(code), "", nullptr, 0) == 0;
}

LaunchedBy launched_by(const std::function<std::string(const char*)>& get) {
  LaunchedBy result;
  if (const std::string size = get("OMPI_COMM_WORLD_SIZE"); !size.empty()) {
    result = {true, to_number(size), "mpirun", true};
  } else if (const std::string tasks = get("SLURM_STEP_NUM_TASKS"); !tasks.empty() && !get("SLURM_PROCID").empty()) {
    // One task is a plain process, often the shell of an interactive allocation.
    result = {to_number(tasks) > 1, to_number(tasks), "srun",
              !get("PMIX_RANK").empty() || !get("PMI_RANK").empty() || !get("PMI_FD").empty()};
  } else if (const std::string pmi_size = get("PMI_SIZE"); !pmi_size.empty()) {
    result = {true, to_number(pmi_size), "mpiexec", true};
  } else if (!get("PMIX_RANK").empty()) {
    result = {true, 0, "mpiexec", true};
  }
  return result;
}

struct MpiSession::State {
  World world;
  LaunchedBy launched;
  std::unique_ptr<HostComm> host;
};

MpiSession::MpiSession() : state_(std::make_unique<State>()) {
  State& s = *state_;
  std::array<char, 256> name{};
  if (::gethostname(name.data(), name.size() - 1) == 0) s.world.host = name.data();
  s.launched = launched_by(environment);
  if (!s.launched.mpi) {
    s.host = std::make_unique<SingleHostComm>();
    return;
  }
  if (!s.launched.connects) {
    // MPI_Init would print twenty lines in every process. One process speaks for all.
    if (environment("SLURM_PROCID") != "0") throw PeerFailed(ExitCode::kUsage);
    throw usage_error(fmt::format("srun started {} processes but offers MPI no way to connect them", s.launched.size),
                      "start with `srun --mpi=pmix` (see `srun --mpi=list`), or with mpirun");
  }
  int provided = MPI_THREAD_SINGLE;
  check_mpi(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &provided), "MPI_Init_thread");
  if (provided < MPI_THREAD_MULTIPLE) {
    throw usage_error("this MPI does not allow several threads to communicate (MPI_THREAD_MULTIPLE)",
                      "use Open MPI 4 or newer, built with thread support");
  }
  const std::string host_name = s.world.host;
  s.world = find_world();
  s.world.host = host_name;
  if (s.launched.size > 0 && s.launched.size != s.world.world_size) {
    throw usage_error(fmt::format("{} started {} processes but MPI connects only {}", s.launched.launcher,
                                  s.launched.size, s.world.world_size),
                      s.launched.launcher == "srun"
                          ? "start with `srun --mpi=pmix` (see `srun --mpi=list`), or with mpirun"
                          : "use the mpirun of the MPI that dtrain was built with");
  }
  ProcessState& process = process_state();
  process.rank = s.world.rank;
  process.node_rank = s.world.node_rank;
  auto host = std::make_unique<MpiHostComm>(process.flag.load());
  process.shared = share_memory(s.world, *host, sizeof(FailureFlag));
  if (process.shared != nullptr) {
    // The block is zeroed, which is a flag's initial state; every rank's object is the same memory.
    process.flag = std::launder(reinterpret_cast<FailureFlag*>(process.shared->data()));
    host->use_flag(process.flag);
  }
  s.host = std::move(host);
}

MpiSession::~MpiSession() = default;

const World& MpiSession::world() const { return state_->world; }
HostComm& MpiSession::host() { return *state_->host; }
bool MpiSession::uses_mpi() const { return state_->launched.mpi; }

void MpiSession::finish() {
  if (!uses_mpi()) return;
  // MPI_Finalize has no deadline of its own.
  state_->host->barrier("end of the job");
  check_mpi(MPI_Finalize(), "MPI_Finalize");
}

bool report_failure(ExitCode code) noexcept {
  ProcessState& process = process_state();
  const bool first = process.flag.load()->report(process.rank, code);
  if (first && process.node_rank > 0) std::this_thread::sleep_for(milliseconds(300));
  return first;
}

void end_job(ExitCode code) noexcept {
  std::fflush(stdout);
  std::fflush(stderr);
  ProcessState& process = process_state();
  if (!mpi_is_running()) _exit(static_cast<int>(code));
  FailureFlag& flag = *process.flag.load();
  if (!flag.report(process.rank, code) && flag.rank() != process.rank) {
    // Another rank is about to print its reason and to end this process too: do not overtake it.
    code = flag.code();
    std::this_thread::sleep_for(std::chrono::seconds(2));
  }
  if (ask_launcher_to_end(code)) {
    // The daemon kills all ranks, this one too; leaving earlier could print that a process exited early.
    std::this_thread::sleep_for(std::chrono::seconds(5));
    _exit(static_cast<int>(code));
  }
  MPI_Abort(MPI_COMM_WORLD, static_cast<int>(code));
  _exit(static_cast<int>(code));
}

}  // namespace dtrain
