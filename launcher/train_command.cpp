#include "launcher/train_command.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <optional>

#include <fmt/ranges.h>

#include "configs/config_text.h"
#include "core/clock.h"
#include "core/file.h"
#include "core/log.h"
#include "dist/make_communicator.h"
#include "launcher/failure.h"
#include "launcher/inputs.h"
#include "launcher/job_setup.h"
#include "launcher/stop_signals.h"
#include "trainer/callbacks/early_stopping.h"
#include "trainer/callbacks/log_printer.h"
#include "trainer/callbacks/log_writer.h"
#include "trainer/callbacks/progress_bar.h"
#include "trainer/callbacks/tensorboard_writer.h"
#include "trainer/checkpoint/run_json.h"
#include "trainer/checkpoint/run_lock.h"
#include "trainer/first_rank.h"
#include "trainer/model_parameters.h"
#include "trainer/position.h"
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

  [[nodiscard]] const fs::path& path() const { return path_; }

  // Local; never throws: the failure itself matters more than its record.
  void record_failure(const Error& error) const noexcept {
    if (!taken_) return;
    try {
      RunRecord record = read_run_record(path_).value_or(RunRecord{});
      record.state = "failed";
      record.step = std::max<std::int64_t>(record.step, current_step() - 1);
      record.exit = static_cast<int>(error.code());
      record.reason = error.what();
      write_run_record(path_, record);
    } catch (const std::exception& exception) {
      log::debug("cannot write run.json: {}", exception.what());
    }
  }

 private:
  HostComm& host_;
  fs::path path_;
  OutputFolderOptions options_;
  std::unique_ptr<RunLock> lock_;  // on rank 0
  bool taken_ = false;
};

void log_plan(const Trainer& trainer, const TrainConfig& config, const Inputs& inputs) {
  const TrainingConfig& training = config.training;
  const std::int64_t per_step =
      training.per_device_train_batch_size * training.gradient_accumulation_steps * trainer.shard_options().world_size;
  log::info("model: {} for {} with {} parameters{}; {} of up to {} tokens", inputs.model->model_type(),
            config.model.task, trainable_elements(*inputs.model),
            inputs.num_labels > 0 ? fmt::format(", {} labels", inputs.num_labels) : "",
            is_language_model(inputs.task) && !config.data.line_by_line ? "blocks" : "texts", inputs.max_length);
  if (!inputs.report.missing.empty()) log::info("drawn anew: {}", fmt::join(inputs.report.missing, ", "));
  if (!inputs.report.unexpected.empty()) {
    log::info("not used from model.safetensors: {}", fmt::join(inputs.report.unexpected, ", "));
  }
  log::info("examples: {} for training{}", inputs.train_data->size(),
            inputs.eval_data ? fmt::format(", {} for evaluation", inputs.eval_data->size()) : "");
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

std::vector<std::shared_ptr<Callback>> make_callbacks(const TrainConfig& config, const Model& model,
                                                      const fs::path& folder, HostComm& host) {
  std::vector<std::shared_ptr<Callback>> callbacks = {std::make_shared<LogWriter>(folder / "log.jsonl", &host),
                                                      std::make_shared<LogPrinter>()};
  if (wants_tensorboard(config.training)) {
    const char* logging_dir = std::getenv("TENSORBOARD_LOGGING_DIR");
    callbacks.push_back(std::make_shared<TensorboardWriter>(
        TensorboardOptions{.runs = folder / "runs",
                           .folder = logging_dir == nullptr ? fs::path() : expand_home(logging_dir),
                           .settings = to_toml(config),
                           .model_config = model.config_json().dump(2)}));
  }
  if (config.callbacks.early_stopping_patience) {
    const std::string metric = best_metric_name(config.training);
    callbacks.push_back(
        std::make_shared<EarlyStopping>(EarlyStoppingOptions{.patience = *config.callbacks.early_stopping_patience,
                                                             .threshold = config.callbacks.early_stopping_threshold,
                                                             .metric = metric,
                                                             .greater_is_better = greater_is_better(config.training)}));
  }
  if (wants_progress_bar(config.training)) {
    ProgressOptions options;
    options.terminal = stderr_is_terminal();
    callbacks.push_back(std::make_shared<ProgressBar>(std::move(options)));
  }
  return callbacks;
}

ExitCode train(const TrainConfig& config, const Arguments& arguments, MpiSession& session, OutputFolder& folder) {
  const World& world = session.world();
  HostComm& host = session.host();
  const Stopwatch start;
  const JobDevice job = set_up_device(config.training, arguments, session);

  // One rank per node tokenises while the others wait: it may use the threads of all of them.
  Inputs inputs = load_inputs(config, world, host, job.threads * world.local_size);
  inputs.model->to(job.device);
  TrainerParts parts;
  parts.model = inputs.model;
  parts.train_data = inputs.train_data;
  parts.eval_data = inputs.eval_data;
  parts.collator = inputs.collator;
  parts.metrics = make_metrics(config, inputs);
  parts.callbacks = make_callbacks(config, *inputs.model, folder.path(), host);
  parts.tokenizer_files = inputs.tokenizer_files;
  parts.world = world;
  parts.host = &host;
  parts.communicator = make_communicator(world, host, job.device,
                                         {.deadline_seconds = static_cast<double>(config.training.ddp_timeout)});
  parts.device = job.device;
  parts.received_signal = &StopSignals::received;
  if (world.is_first() && world.world_size > 1) log::info("gradients are summed by: {}", parts.communicator->backend());

  folder.take();
  Trainer trainer(config, std::move(parts));
  if (world.is_first()) log_plan(trainer, config, inputs);
  log::debug("ready after {:.2f} s", start.seconds());
  const StopSignals signals;
  const TrainOutcome outcome = trainer.train();
  if (outcome.signal != 0) {
    if (world.is_first())
      log::warning(
          "a checkpoint of step {} is published; start again with "
          "training.resume_from_checkpoint = \"latest\" to go on",
          outcome.global_step);
    return ExitCode::kPreempted;
  }
  if (world.is_first()) {
    if (const std::string table = results_table(trainer.state()); !table.empty()) {
      fmt::print("{}{}", table, table.ends_with('\n') ? "" : "\n");
    }
    fmt::print("{} steps in {}; model and results are in {}\n", outcome.global_step, format_duration(start.seconds()),
               folder.path().string());
    std::fflush(stdout);
  }
  return ExitCode::kDone;
}

}  // namespace

ExitCode run_train(const Arguments& arguments, MpiSession& session) {
  const TrainConfig config = agreed_config(arguments, session.world(), session.host());
  session.host().set_deadline(static_cast<double>(config.training.ddp_timeout));
  OutputFolder folder(config.training, session.host());
  try {
    return train(config, arguments, session, folder);
  } catch (const PeerFailed&) {
    throw;  // the other rank records it
  } catch (const std::exception& exception) {
    folder.record_failure(as_error(exception));
    throw;
  }
}

}  // namespace dtrain
