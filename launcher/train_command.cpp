#include "launcher/train_command.h"

#include <filesystem>
#include <memory>
#include <utility>

#include <fmt/ranges.h>

#include "core/file.h"
#include "core/log.h"
#include "launcher/hub_result.h"
#include "launcher/inputs.h"
#include "launcher/job_setup.h"
#include "launcher/task_inputs.h"
#include "launcher/training_run.h"
#include "trainer/first_rank.h"
#include "trainer/model_parameters.h"

namespace dtrain {
namespace {

void log_model(const TrainConfig& config, const Model& model, const Inputs& inputs) {
  log::info("model: {} for {} with {} parameters{}; {} of up to {} tokens", model.model_type(), config.model.task,
            trainable_elements(model), inputs.num_labels > 0 ? fmt::format(", {} labels", inputs.num_labels) : "",
            is_language_model(inputs.task) && !config.data.line_by_line ? "blocks" : "texts", inputs.max_length);
  if (!inputs.report.missing.empty()) log::info("drawn anew: {}", fmt::join(inputs.report.missing, ", "));
  if (!inputs.report.unexpected.empty()) {
    log::info("not used from model.safetensors: {}", fmt::join(inputs.report.unexpected, ", "));
  }
}

}  // namespace

ExitCode run_train(const Arguments& arguments, MpiSession& session) {
  const TrainConfig config = agreed_config(arguments, session.world(), session.host());
  const std::filesystem::path output_dir = expand_home(config.training.output_dir);
  Inputs inputs;
  ModelCardFacts card;
  std::shared_ptr<HubPusher> pusher;  // on rank 0
  TrainingHooks hooks;
  hooks.make_parts = [&](const Job& job) {
    on_first_rank(job.host, "what the Hub needs", [&] {
      card = card_facts(job.config, job.world.world_size, !job.device.is_cpu());
      pusher = make_hub_pusher(job.config, card, output_dir);
      return std::string();
    });
    inputs = {};  // of an attempt that ran out of memory
    // One rank per node tokenises while the others wait: it may use the threads of all of them.
    inputs = load_inputs(job.config, job.world, job.host, job.threads * job.world.local_size);
    TrainerParts parts;
    parts.model = inputs.model;
    parts.train_data = inputs.train_data;
    parts.eval_data = inputs.eval_data;
    parts.collator = inputs.collator;
    parts.metrics = make_metrics(job.config, inputs);
    if (job.config.training.predict_with_generate) parts.writer = text_writer(job.config, inputs);
    if (pusher) parts.callbacks.push_back(pusher);
    parts.tokenizer_files = inputs.tokenizer_files;
    return parts;
  };
  hooks.on_plan = [&](Trainer& /*trainer*/) { log_model(config, *inputs.model, inputs); };
  hooks.on_trained = [&](Trainer& trainer, const TrainOutcome& outcome) {
    if (session.world().is_first()) {
      card.log_history = trainer.state().log_history;
      card.results = outcome.eval_metrics;
      write_model_card(output_dir, card);
    }
    if (!config.training.push_to_hub) return;
    trainer.begin_push();
    push_result(pusher.get(), config.training, inputs.tokenizer_files, session.host());
  };
  return run_training(config, arguments, session, hooks);
}

}  // namespace dtrain
