#include "launcher/job_setup.h"

#include <cstdlib>
#include <string>
#include <utility>

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <fmt/ranges.h>

#include "configs/config_text.h"
#include "configs/load_config.h"
#include "configs/setting.h"
#include "core/log.h"
#include "dist/agreement.h"
#include "dist/core_binding.h"
#include "dist/watchdog.h"
#include "launcher/config_file.h"
#include "launcher/device.h"
#include "launcher/task_inputs.h"
#include "launcher/versions.h"
#include "trainer/kernels/cpu/block_cache.h"
#include "trainer/kernels/shortcuts.h"

namespace dtrain {
namespace {

log::Level level_of(const std::string& name, log::Level passive) {
  if (name == "debug") return log::Level::kDebug;
  if (name == "info") return log::Level::kInfo;
  if (name == "warning") return log::Level::kWarning;
  if (name == "error" || name == "critical") return log::Level::kError;
  return passive;
}

// Collective. What each rank computes on, as one line per distinct answer.
void log_devices(const World& world, HostComm& host, const ChosenDevice& device, const CoreShare& share) {
  const std::string mine = fmt::format("{}, {} thread{} on cores {}", device.name, share.threads,
                                       share.threads == 1 ? "" : "s", fmt::join(share.cpus, " "));
  const std::vector<std::string> all = host.all_gather("devices", fmt::format("{}: {}", world.host, mine));
  if (!world.is_first()) return;
  for (std::size_t rank = 0; rank < all.size(); ++rank) log::info("rank {} on {}", rank, all[rank]);
}

// Collective. With another number of threads, sums are divided otherwise and end in other bits.
void agree_on_threads(HostComm& host, int threads, bool reproducible) {
  try {
    agree(host, "number of threads", {{"threads of a rank", std::to_string(threads)}});
  } catch (const Error& error) {
    if (reproducible) {
      throw disagree_error(
          error.what(),
          "training.reproducible needs the same number on every rank: set OMP_NUM_THREADS, or choose a "
          "number of ranks that divides the cores");
    }
    if (host.rank() == 0) log::warning("{}: another run may end in other last digits", error.what());
  }
}

// What torch.use_deterministic_algorithms and transformers.enable_full_determinism switch. cuBLAS reads the variable
// when it starts, which is later.
void use_deterministic_algorithms(const c10::Device& device) {
  if (device.is_cpu()) {
    log::info("full_determinism: nothing to do on the CPU, where sums have one order anyway");
    return;
  }
  ::setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8", /*replace=*/0);
  at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/false);
  at::globalContext().setDeterministicCuDNN(true);
  at::globalContext().setBenchmarkCuDNN(false);
}

}  // namespace

TrainConfig agreed_config(const Arguments& arguments, const World& world, HostComm& host, Parts parts) {
  const WatchSection section(Section::kInit);
  const std::string bytes = share_config_file(arguments, host);
  LoadedConfig loaded = load_config(bytes, arguments.file, arguments.overrides, parts);
  const TrainingConfig& training = loaded.config.training;
  log::set_up(world.rank, world.world_size, level_of(training.log_level, log::Level::kInfo),
              level_of(training.log_level_replica, log::Level::kWarning));
  if (world.is_first()) {
    for (const std::string& warning : loaded.warnings) log::warning("{}", warning);
  }
  // One by one, so that a difference is named; together they are one message of a digest.
  std::vector<AgreementItem> items;
  for (const Setting& setting : all_settings()) {
    const Json value = setting.get(loaded.config);
    items.push_back({setting.name(), value.is_null() ? "not set" : value_text(setting, value)});
  }
  items.insert(items.end(), {{"the command", std::to_string(static_cast<int>(arguments.command))},
                             {"--bind", arguments.bind == BindMode::kNone ? "none" : "fair"},
                             {"--model", arguments.model},
                             {"--data", arguments.data},
                             {"--out", arguments.out},
                             {"--unlabelled", arguments.unlabelled ? "yes" : "no"}});
  for (const auto& [name, version] : versions()) items.push_back({name, version});
  items.push_back({"the build", build_id("dtrain")});
  items.push_back({"the build of LibTorch", build_id("torch")});
  agree(host, "configuration", items);
  return std::move(loaded.config);
}

JobDevice set_up_device(const TrainingConfig& training, const Arguments& arguments, MpiSession& session) {
  const World& world = session.world();
  const ChosenDevice device = choose_device(training, world);
  const CoreShare share = bind_cores(world, session.host(), arguments.bind);
  // Sums of LibTorch's may depend on the number of threads, and the share of the cores on that of the ranks.
  const bool one_thread = training.reproducible && device.device.is_cpu() && std::getenv("OMP_NUM_THREADS") == nullptr;
  at::set_num_threads(one_thread ? 1 : share.threads);
  at::globalContext().setFlushDenormal(true);
  if (device.device.is_cpu() && uses(Shortcut::kBlockCache)) cpu::use_block_cache();
  if (training.full_determinism || (training.reproducible && !device.device.is_cpu()))
    use_deterministic_algorithms(device.device);
  if (training.tf32 && !device.device.is_cpu()) {  // as torch.backends.fp32_precision
    at::globalContext().setFloat32Precision(at::Float32Backend::GENERIC, at::Float32Op::ALL,
                                            *training.tf32 ? at::Float32Precision::TF32 : at::Float32Precision::IEEE);
  }
  log_devices(world, session.host(), device, share);
  agree_on_threads(session.host(), share.threads, training.reproducible);
  return {device.device, share.threads};
}

std::vector<std::unique_ptr<Metric>> make_metrics(const TrainConfig& config, const Inputs& inputs) {
  std::vector<std::unique_ptr<Metric>> metrics;
  const MetricScope scope = metric_scope(config, inputs);
  for (const std::string& spec : config.metrics.compute) {
    const Registry::MakeMetric* make = inputs.registry.find_metric(spec.substr(0, spec.find(':')));
    metrics.push_back(make != nullptr ? (*make)({.spec = spec, .scope = scope}) : make_metric(spec, scope));
  }
  return metrics;
}

}  // namespace dtrain
