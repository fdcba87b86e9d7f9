// Core binding: which cores this rank computes on. Open MPI binds a rank to one core when a node has at most two ranks,
// which halves the speed of a CPU run with two threads a rank; here the ranks of a node share the job's cores fairly.
#pragma once

#include <span>
#include <vector>

#include "dist/host_comm.h"
#include "dist/world.h"

namespace dtrain {

enum class BindMode {
  kFair,  // the cores of the job on this node, divided among its ranks
  kNone,  // leave the affinity of the process as it is
};

// One logical processor. Siblings (hyper-threads) have the same package and core.
struct Cpu {
  int id = 0;
  int package = 0;
  int core = 0;
};

struct CoreShare {
  std::vector<int> cpus;  // logical processors of this rank
  int threads = 1;        // physical cores among them: how many compute threads to use
};

// Share `index` of `parts`: whole physical cores, neighbours together, sizes differing by one core at most. With more
// parts than cores, parts share cores round robin with one thread each. Pure.
[[nodiscard]] CoreShare fair_share(std::span<const Cpu> allowed, int index, int parts);

// Collective. Sets the affinity of all threads of this process and returns its share; the caller sets LibTorch's thread
// count from it. With kFair the job's cores are those of the process that started the ranks (mpirun or its daemon),
// which undoes its per-rank binding but respects taskset and cpusets around the job. Where the ranks of a node then
// still have different cores (srun --cpu-bind, rank files), each keeps its own. OMP_NUM_THREADS, when set, is the
// thread count.
CoreShare bind_cores(const World& world, HostComm& host, BindMode mode);

}  // namespace dtrain
