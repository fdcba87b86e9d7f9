#include "launcher/training_run.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <optional>

#include <c10/core/CachingDeviceAllocator.h>

#include "configs/config_text.h"
#include "core/clock.h"
#include "core/file.h"
#include "core/log.h"
#include "datasets/collators/stacking_collator.h"
#include "dist/failure.h"
#include "dist/make_communicator.h"
#include "dist/out_of_memory.h"
#include "dist/watchdog.h"
#include "launcher/job_setup.h"
#include "launcher/stop_signals.h"
#include "trainer/callbacks/early_stopping.h"
#include "trainer/callbacks/log_printer.h"
#include "trainer/callbacks/log_writer.h"
#include "trainer/callbacks/printer.h"
#include "trainer/callbacks/progress_bar.h"
#include "trainer/callbacks/straggler_warning.h"
#include "trainer/callbacks/tensorboard_writer.h"
#include "trainer/checkpoint/run_json.h"
#include "trainer/checkpoint/run_lock.h"
#include "trainer/first_rank.h"
#include "trainer/kernels/cpu/block_cache.h"
#include "trainer/position.h"
#include "trainer/reproducible.h"
#include "trainer/resume.h"
#include "trainer/trainer.h"

namespace dtrain {
namespace fs = std::filesystem;
namespace {

// output_dir in the hands of this job: locked by rank 0 and fit to be written into.
class OutputFolder {
 public:
  OutputFolder(const TrainingConfig& training, HostComm& host) : host_(host), path_(expand_home(training.output_dir)) {
    options_ = {.overwrite = training.overwrite_output_dir, .resume = training.resume_from_checkpoint.has_value()};
    on_first_rank(host_, "output_dir", [&] {
      lock_ = std::make_unique<RunLock>(path_);
      // What is to be deleted is deleted when everything else has proved good.
      if (!options_.overwrite) prepare_output_folder(path_, options_);
      return std::string();
    });
  }

  // Collective. To be called before anything is written.
  void take() {
    on_first_rank(host_, "take output_dir", [&] {
      if (options_.overwrite) prepare_output_folder(path_, options_);
      return std::string();
    });
    taken_ = true;
  }

  // Collective. Deletes what an attempt that began from the beginning has written.
  void start_again() {
    on_first_rank(host_, "empty output_dir", [&] {
      prepare_output_folder(path_, {.overwrite = true, .resume = false});
      return std::string();
    });
  }

  [[nodiscard]] const fs::path& path() const { return path_; }

  // Local; never throws: the failure itself matters more than its record.
  void record_failure(const Error& error, const std::vector<std::string>& suspects = {}) const noexcept {
    if (!taken_) return;
    try {
      RunRecord record = read_run_record(path_).value_or(RunRecord{});
      record.state = "failed";
      record.step = std::max<std::int64_t>(record.step, current_step() - 1);
      record.exit = static_cast<int>(error.code());
      record.reason = error.what();
      record.suspects = suspects;
      write_run_record(path_, record);
    } catch (const std::exception& exception) {
      log::debug("cannot write run.json: {}", exception.what());
    }
  }

 private:
  HostComm& host_;
  fs::path path_;
  OutputFolderOptions options_;
  std::unique_ptr<RunLock> lock_;   // on rank 0
  std::atomic<bool> taken_{false};  // the watchdog asks too
};

// While it lives, the watchdog knows this run: where dumps go, and who records a stall.
class WatchedFolder {
 public:
  // Collective.
  WatchedFolder(const TrainConfig& config, MpiSession& session, const OutputFolder& folder) {
    on_first_rank(session.host(), "dumps of an earlier run", [&] {
      std::error_code ignored;
      fs::remove_all(hang_folder(folder.path()), ignored);
      return std::string();
    });
    Watchdog::process().sections().set_limits({.init = config.reliability.init_timeout,
                                               .step = config.reliability.step_timeout,
                                               .eval = config.reliability.eval_timeout,
                                               .save = config.reliability.save_timeout,
                                               .longest = static_cast<double>(config.training.ddp_timeout)});
    Watchdog::process().begin_run(
        {.output_dir = folder.path(),
         .hosts = session.host().all_gather("hosts of ranks", session.world().host),
         .record = [&folder](const std::string& reason, const std::vector<std::string>& suspects) {
           folder.record_failure(Error(ExitCode::kStalled, reason), suspects);
         }});
  }
  ~WatchedFolder() { Watchdog::process().end_run(); }
  WatchedFolder(const WatchedFolder&) = delete;
  WatchedFolder& operator=(const WatchedFolder&) = delete;
};

void log_plan(const Trainer& trainer, const TrainConfig& config, std::int64_t train_size, std::int64_t eval_size) {
  const TrainingConfig& training = config.training;
  const std::int64_t per_step =
      training.per_device_train_batch_size * training.gradient_accumulation_steps * trainer.shard_options().world_size;
  log::info("examples: {} for training{}", train_size,
            eval_size > 0 ? fmt::format(", {} for evaluation", eval_size) : "");
  log::info("batch: {} per device x {} ranks x {} accumulated = {} examples a step",
            training.per_device_train_batch_size, trainer.shard_options().world_size,
            training.gradient_accumulation_steps, per_step);
  log::info("plan: {} steps in {} epoch{}, {} steps an epoch", trainer.arithmetic().total_steps,
            trainer.arithmetic().epochs, trainer.arithmetic().epochs == 1 ? "" : "s",
            trainer.arithmetic().steps_per_epoch);
}

bool wants_progress_bar(const TrainingConfig& training) {
  if (training.disable_tqdm) return !*training.disable_tqdm;
  return stderr_is_terminal() && training.log_level != "error" && training.log_level != "critical";
}

bool wants_tensorboard(const TrainingConfig& training) {
  return std::any_of(training.report_to.begin(), training.report_to.end(),
                     [](const std::string& name) { return name == "tensorboard" || name == "all"; });
}

// The rule of accelerate's find_executable_batch_size (1.15); 0 when there is none left.
std::int64_t next_batch_size(std::int64_t size) {
  constexpr double kFactor = 0.9;
  return static_cast<std::int64_t>(static_cast<double>(size) * kFactor);
}

// `model_json`: its config.json, where it is known already.
std::vector<std::shared_ptr<Callback>> make_callbacks(const TrainConfig& config, const std::string& model_json,
                                                      const fs::path& folder, HostComm& host) {
  std::vector<std::shared_ptr<Callback>> callbacks = {std::make_shared<LogWriter>(folder / "log.jsonl", &host),
                                                      std::make_shared<LogPrinter>()};
  if (host.size() > 1) callbacks.push_back(std::make_shared<StragglerWarning>(host));
  if (wants_tensorboard(config.training)) {
    const char* logging_dir = std::getenv("TENSORBOARD_LOGGING_DIR");
    callbacks.push_back(std::make_shared<TensorboardWriter>(
        TensorboardOptions{.runs = folder / "runs",
                           .folder = logging_dir == nullptr ? fs::path() : expand_home(logging_dir),
                           .settings = to_toml(config),
                           .model_config = model_json}));
  }
  if (config.callbacks.early_stopping_patience) {
    const std::string metric = best_metric_name(config.training);
    callbacks.push_back(
        std::make_shared<EarlyStopping>(EarlyStoppingOptions{.patience = *config.callbacks.early_stopping_patience,
                                                             .threshold = config.callbacks.early_stopping_threshold,
                                                             .metric = metric,
                                                             .greater_is_better = greater_is_better(config.training)}));
  }
  if (config.callbacks.printer) callbacks.push_back(std::make_shared<Printer>());
  if (wants_progress_bar(config.training)) {
    ProgressOptions options;
    options.terminal = stderr_is_terminal();
    callbacks.push_back(std::make_shared<ProgressBar>(std::move(options)));
  }
  return callbacks;
}

// What all attempts share.
struct Attempts {
  const World& world;
  HostComm& host;
  JobDevice device;
  std::shared_ptr<Communicator> communicator;
  const TrainingHooks& hooks;
  Stopwatch since_start;
};

// Collective. One training from its beginning to its end. Nothing when it ran out of memory and a smaller batch may
// help.
std::optional<ExitCode> attempt(const TrainConfig& config, const Attempts& all, OutputFolder& folder) {
  const World& world = all.world;
  std::optional<WatchSection> loading(std::in_place, Section::kLoad);
  TrainerParts parts = all.hooks.make_parts({config, world, all.host, all.device.device, all.device.threads});
  if (parts.model) parts.model->to(all.device.device);
  if (!parts.collator) parts.collator = make_stacking_collator();
  std::vector<std::shared_ptr<Callback>> callbacks =
      make_callbacks(config, parts.model ? parts.model->config_json().dump(2) : "", folder.path(), all.host);
  parts.callbacks.insert(parts.callbacks.begin(), callbacks.begin(), callbacks.end());
  parts.world = world;
  parts.host = &all.host;
  parts.communicator = all.communicator;
  parts.device = all.device.device;
  parts.received_signal = &StopSignals::received;

  folder.take();
  const std::int64_t train_size = parts.train_data->size();
  const std::int64_t eval_size = parts.eval_data ? parts.eval_data->size() : 0;
  Trainer trainer(config, std::move(parts));
  if (world.is_first()) {
    if (all.hooks.on_plan) all.hooks.on_plan(trainer);
    log_plan(trainer, config, train_size, eval_size);
  }
  log::debug("ready after {:.2f} s", all.since_start.seconds());
  loading.reset();
  TrainOutcome outcome;
  try {
    outcome = trainer.train();
  } catch (const OutOfMemory& error) {
    // A run cannot go on from a checkpoint with another batch size than the checkpoint's.
    if (!config.training.auto_find_batch_size || trainer.first_step() > 0) throw;
    if (world.is_first()) log::warning("{}", error.what());
    return std::nullopt;
  }
  if (outcome.signal != 0) {
    if (world.is_first())
      log::warning(
          "a checkpoint of step {} is published; start again with "
          "training.resume_from_checkpoint = \"latest\" to go on",
          outcome.global_step);
    return ExitCode::kPreempted;
  }
  if (all.hooks.on_trained) all.hooks.on_trained(trainer, outcome);
  if (world.is_first()) {
    if (const std::string table = results_table(trainer.state()); !table.empty()) {
      fmt::print("{}{}", table, table.ends_with('\n') ? "" : "\n");
    }
    fmt::print("{} steps in {}; model and results are in {}\n", outcome.global_step,
               format_duration(all.since_start.seconds()), folder.path().string());
    std::fflush(stdout);
  }
  return ExitCode::kDone;
}

ExitCode train(TrainConfig config, const Arguments& arguments, MpiSession& session, OutputFolder& folder,
               const TrainingHooks& hooks) {
  std::optional<WatchSection> loading(std::in_place, Section::kLoad);
  config = config_to_resume(std::move(config), session.host());
  check_reproducible(config.training, session.world().world_size);
  Attempts all{.world = session.world(),
               .host = session.host(),
               .device = {},
               .communicator = {},
               .hooks = hooks,
               .since_start = {}};
  all.device = set_up_device(config.training, arguments, session);
  all.communicator = make_communicator(all.world, all.host, all.device.device,
                                       {.deadline_seconds = static_cast<double>(config.training.ddp_timeout)});
  if (all.world.is_first() && all.world.world_size > 1) {
    log::info("gradients are summed by: {}", all.communicator->backend());
  }
  loading.reset();
  std::int64_t& batch_size = config.training.per_device_train_batch_size;
  while (true) {
    if (const std::optional<ExitCode> code = attempt(config, all, folder)) return *code;
    folder.start_again();
    const std::int64_t failed = batch_size;
    batch_size = next_batch_size(failed);
    if (batch_size == 0) throw OutOfMemory("out of memory even with per_device_train_batch_size = 1");
    if (all.device.device.is_cpu()) {
      cpu::empty_block_cache();
    } else {
      at::getDeviceAllocator(all.device.device.type())->emptyCache();
    }
    if (all.world.is_first()) {
      log::warning("starting again with per_device_train_batch_size = {}, was {}", batch_size, failed);
    }
  }
}

}  // namespace

ExitCode run_training(const TrainConfig& config, const Arguments& arguments, MpiSession& session,
                      const TrainingHooks& hooks) {
  session.host().set_deadline(static_cast<double>(config.training.ddp_timeout));
  std::optional<WatchSection> beginning(std::in_place, Section::kInit);
  OutputFolder folder(config.training, session.host());
  const WatchedFolder watched(config, session, folder);
  beginning.reset();
  // From here on, not only in the loop: a signal that comes while data is tokenised stops the run after its first step.
  const StopSignals signals;
  try {
    return train(config, arguments, session, folder, hooks);
  } catch (const PeerFailed& error) {
    if (error.code() == ExitCode::kStalled) Watchdog::process().end_stalled("");
    throw;  // the other rank records it
  } catch (const std::exception& exception) {
    const Error error = as_error(exception);
    if (error.code() == ExitCode::kStalled) Watchdog::process().end_stalled(error.what());
    folder.record_failure(error);
    throw;
  }
}

}  // namespace dtrain
