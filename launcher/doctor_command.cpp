#include "launcher/doctor_command.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include <unistd.h>

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/remainder.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "core/clock.h"
#include "core/file.h"
#include "dist/core_binding.h"
#include "dist/gpu_backend.h"
#include "dist/make_communicator.h"
#include "launcher/device.h"
#include "launcher/versions.h"

namespace dtrain {
namespace {

struct Check {
  std::string name;
  std::string result;
  bool passed = true;
};

// Element i on rank r is (i mod 1000) + r: whole numbers small enough that every order of summation is exact.
bool sums_are_exact(Communicator& communicator, c10::Device device, std::int64_t elements, at::ScalarType type) {
  const at::Tensor base = at::remainder(at::arange(elements, at::TensorOptions(at::kLong)), 1000).to(type).to(device);
  const at::Tensor tensor = base.add(communicator.rank());
  communicator.all_reduce_sum(tensor, "doctor sum")->wait();
  const std::int64_t ranks = communicator.size();
  return at::equal(tensor, base.mul(ranks).add(ranks * (ranks - 1) / 2));
}

bool broadcasts_are_exact(Communicator& communicator, c10::Device device) {
  constexpr std::int64_t kElements = 100'003;
  for (int root = 0; root < communicator.size(); ++root) {
    const at::Tensor tensor = at::zeros({kElements}, at::TensorOptions(at::kFloat).device(device));
    if (communicator.rank() == root) tensor.fill_(root + 1);
    communicator.broadcast(tensor, root, "doctor broadcast")->wait();
    if (!at::equal(tensor, at::full_like(tensor, root + 1))) return false;
  }
  return true;
}

// Collective. Whether `mine` holds on all ranks.
bool on_all_ranks(HostComm& host, bool mine) {
  std::vector<std::int64_t> failed{mine ? 0 : 1};
  host.all_reduce_max("doctor verdict", failed);
  return failed[0] == 0;
}

Check check_sums(Communicator& communicator, HostComm& host, c10::Device device) {
  bool exact = broadcasts_are_exact(communicator, device);
  for (const std::int64_t elements : {std::int64_t{1}, std::int64_t{1'000}, std::int64_t{3'000'017}}) {
    for (const at::ScalarType type : {at::kFloat, at::kLong}) {
      exact = sums_are_exact(communicator, device, elements, type) && exact;
    }
  }
  exact = on_all_ranks(host, exact);
  return {"sums over ranks", fmt::format("{} ({})", exact ? "exact" : "WRONG", communicator.backend()), exact};
}

Check check_sum_speed(Communicator& communicator, HostComm& host, c10::Device device) {
  constexpr std::int64_t kBytes = std::int64_t{64} << 20;
  constexpr int kRepeats = 6;
  const at::Tensor tensor = at::zeros({kBytes / 4}, at::TensorOptions(at::kFloat).device(device));
  double best = 0;
  for (int i = 0; i < kRepeats; ++i) {
    host.barrier("doctor speed");
    const Stopwatch watch;
    communicator.all_reduce_sum(tensor, "doctor speed")->wait();
    if (device.is_cuda()) load_gpu_backend().synchronize(device.index());
    const double seconds = watch.seconds();
    best = best == 0 ? seconds : std::min(best, seconds);
  }
  return {"speed of sums",
          fmt::format("64 MiB in {:.1f} ms: {:.1f} GB/s", best * 1e3, static_cast<double>(kBytes) / best / 1e9)};
}

Check check_disk(const std::string& folder) {
  namespace fs = std::filesystem;
  constexpr int kRepeats = 11;
  constexpr std::size_t kLarge = std::size_t{64} << 20;
  std::error_code ignored;
  fs::path place = expand_home(folder);
  const fs::path file = place / fmt::format(".dtrain-doctor-{}", ::getpid());
  try {
    std::vector<double> latencies;
    for (int i = 0; i < kRepeats; ++i) {
      const Stopwatch watch;
      write_file_synced(file, std::string(4096, 'x'));
      latencies.push_back(watch.seconds());
    }
    std::nth_element(latencies.begin(), latencies.begin() + kRepeats / 2, latencies.end());
    const Stopwatch watch;
    write_file_synced(file, std::string(kLarge, 'x'));
    const double seconds = watch.seconds();
    fs::remove(file, ignored);
    return {"disk of " + place.string(),
            fmt::format("{:.1f} ms to write and sync 4 KiB, {:.0f} MB/s for 64 MiB, {:.1f} GB free",
                        latencies[kRepeats / 2] * 1e3, static_cast<double>(kLarge) / seconds / 1e6,
                        static_cast<double>(free_space(place)) / 1e9)};
  } catch (const Error& error) {
    fs::remove(file, ignored);
    return {"disk of " + place.string(), error.what(), false};
  }
}

double gigaflops(at::ScalarType type) {
  constexpr std::int64_t kSize = 1024;
  constexpr int kRepeats = 5;
  const at::Tensor a = at::ones({kSize, kSize}, type);
  double best = 0;
  for (int i = 0; i < kRepeats; ++i) {
    const Stopwatch watch;
    const at::Tensor product = at::mm(a, a);
    best = std::max(best, 2.0 * kSize * kSize * kSize / watch.seconds() / 1e9);
  }
  return best;
}

std::string bf16_units() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (!line.starts_with("flags")) continue;
    std::vector<std::string> found;
    for (const char* flag : {"avx512_bf16", "amx_bf16", "avx_ne_convert"}) {
      if (line.find(fmt::format(" {}", flag)) != std::string::npos) found.emplace_back(flag);
    }
    return found.empty() ? "none" : fmt::format("{}", fmt::join(found, " "));
  }
  return "unknown";
}

void add_devices(std::vector<Check>& checks, const World& world, const ChosenDevice& device) {
  checks.push_back(
      {"processor", fmt::format("LibTorch uses {}; oneDNN {}; bfloat16 units: {}", at::get_cpu_capability(),
                                at::globalContext().hasMKLDNN() ? "yes" : "no", bf16_units())});
  checks.push_back({"products", fmt::format("{:.0f} GFLOP/s float32, {:.0f} bfloat16 on rank 0 ({} threads)",
                                            gigaflops(at::kFloat), gigaflops(at::kBFloat16), at::get_num_threads())});
  const int gpus = gpu_count();
  if (gpus == 0) {
    checks.push_back({"GPUs", "none: training uses the CPU"});
    return;
  }
  GpuBackend& backend = load_gpu_backend();
  for (int gpu = 0; gpu < gpus; ++gpu) {
    checks.push_back({fmt::format("GPU {} of {}", gpu, world.host),
                      fmt::format("{}, {:.0f} GB, bfloat16 {}", backend.device_name(gpu),
                                  static_cast<double>(backend.memory(gpu).total_bytes) / 1e9,
                                  backend.supports_bf16(gpu) ? "yes" : "no")});
  }
  checks.push_back({"GPU libraries", backend.versions()});
  checks.push_back({"device of rank 0", device.name});
}

void print_table(const std::vector<Check>& checks) {
  std::size_t width = 0;
  for (const Check& check : checks) width = std::max(width, check.name.size());
  for (const Check& check : checks)
    fmt::print("{:4}  {:<{}}  {}\n", check.passed ? "ok" : "FAIL", check.name, width, check.result);
}

}  // namespace

ExitCode run_doctor(const Arguments& arguments, MpiSession& session) {
  const World& world = session.world();
  HostComm& host = session.host();
  constexpr double kDeadlineSeconds = 60;
  host.set_deadline(kDeadlineSeconds);

  const ChosenDevice device = choose_device({}, world);
  const CoreShare share = bind_cores(world, host, arguments.bind);
  at::set_num_threads(share.threads);
  std::vector<Check> checks;
  for (const auto& [name, version] : versions()) checks.push_back({name, version});
  checks.push_back({"MPI in use", session.uses_mpi() ? "yes" : "no: one process, not started by mpirun or srun"});
  checks.push_back(
      {"ranks", fmt::format("{} on {} node{}", world.world_size, world.num_nodes, world.num_nodes == 1 ? "" : "s")});
  const std::vector<std::string> cores =
      host.all_gather("doctor cores", fmt::format("{}: {} thread{} on cores {}", world.host, share.threads,
                                                  share.threads == 1 ? "" : "s", fmt::join(share.cpus, " ")));
  for (std::size_t rank = 0; rank < cores.size(); ++rank) checks.push_back({fmt::format("rank {}", rank), cores[rank]});
  if (world.is_first()) add_devices(checks, world, device);

  const std::shared_ptr<Communicator> communicator =
      make_communicator(world, host, device.device, {.deadline_seconds = kDeadlineSeconds});
  checks.push_back(check_sums(*communicator, host, device.device));
  if (world.world_size > 1) checks.push_back(check_sum_speed(*communicator, host, device.device));
  if (world.is_first()) checks.push_back(check_disk(arguments.folder));

  const bool passed =
      on_all_ranks(host, std::all_of(checks.begin(), checks.end(), [](const Check& each) { return each.passed; }));
  if (world.is_first()) {
    print_table(checks);
    fmt::print("{}\n", passed ? "everything is fine" : "something is wrong: see the lines that begin with FAIL");
    std::fflush(stdout);
  }
  return passed ? ExitCode::kDone : ExitCode::kInternal;
}

}  // namespace dtrain
