// What a Trainer writes: checkpoints, the best and the final model, result files, run.json.
#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstring>

#include <unistd.h>

#include "configs/config_text.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/fault.h"
#include "core/file.h"
#include "core/log.h"
#include "dist/watchdog.h"
#include "trainer/checkpoint/run_json.h"
#include "trainer/checkpoint_saver.h"
#include "trainer/first_rank.h"
#include "trainer/replicas.h"
#include "trainer/resume.h"
#include "trainer/speed.h"
#include "trainer/trainer.h"

namespace dtrain {
namespace fs = std::filesystem;
namespace {

void write_files(const std::vector<std::pair<std::string, std::string>>& files, const fs::path& folder) {
  for (const auto& [name, content] : files) write_file_synced(folder / name, content);
}

}  // namespace

double Trainer::best_model_metric(const OrderedJson& record) const {
  const std::string name = best_metric_name(config_.training);
  const auto found = record.find(name);
  if (found == record.end()) {
    throw usage_error(fmt::format("metric_for_best_model: evaluation gives no {}", name), "add it to metrics.compute");
  }
  return found->get<double>();
}

bool Trainer::update_best(const OrderedJson& record) {
  const double value = best_model_metric(record);
  // A tie keeps the earlier one, and NaN is never better: comparisons with it are false.
  const bool greater = greater_is_better(config_.training);
  const bool better = !std::isnan(value) &&
                      (!state_.best_metric || (greater ? value > *state_.best_metric : value < *state_.best_metric));
  // Rank 0 decides: metrics are sums of integers, but their last division may round differently on another machine.
  const WatchSection section(Section::kEval);
  const bool improved = on_first_rank(host_, "best metric", [&] { return std::string(better ? "1" : ""); }) == "1";
  if (!improved) return false;
  state_.best_metric = value;
  state_.best_global_step = state_.global_step;
  return true;
}

SaverOptions Trainer::saver_options() const {
  const TrainingConfig& training = config_.training;
  // Uploads read the checkpoint of the step at which they begin.
  const bool uploads = training.push_to_hub && training.hub_strategy != "end";
  return {.in_background = config_.reliability.save_in_background && !uploads,
          .warn_on_failure = config_.reliability.save_error == "warn",
          .save_total_limit = training.save_total_limit.value_or(0),
          .config_digest = config_digest(config_)};
}

CheckpointSnapshot Trainer::snapshot(const NamedTensors& optimizer_state) const {
  CheckpointSnapshot taken{.state = state_, .model = contents_of(*parts_.model), .files = parts_.tokenizer_files};
  taken.files.emplace_back("train.toml", to_toml(config_));
  taken.facts = facts().json();
  if (!keeps_optimizer()) return taken;
  const auto add = [&](const NamedTensors& tensors) {
    taken.optimizer.insert(taken.optimizer.end(), tensors.begin(), tensors.end());
  };
  add(optimizer_state);
  add(totals_.state());
  add(learning_rates_->state());
  if (config_.training.fp16) add(scaler_.state());
  return taken;
}

// With save_total_limit, checkpoints between the best and the last are there to lose little in a crash, and go by
// themselves: a disk that is too slow for all of them gets fewer. Without, somebody wants each of them.
bool Trainer::may_skip_save() const {
  return config_.training.save_total_limit.value_or(0) > 0 && signal_ == 0 && !state_.control.should_training_stop &&
         state_.global_step < arithmetic_.total_steps && state_.best_global_step != state_.global_step;
}

// Seconds that a save may hold the steps up before it is left out: so that small runs have all their checkpoints, and a
// slow disk costs long ones a hundredth of their time.
double Trainer::patience_with_saves() const {
  constexpr double kSeconds = 0.2;
  constexpr double kShare = 0.01;
  return std::max(0.0, kSeconds + kShare * since_train_begin_.seconds() - stalled_seconds_);
}

void Trainer::save_checkpoint(bool save_again) {
  const WatchSection section(Section::kSave);
  const Stopwatch watch;
  state_.control.should_save = save_again;
  const std::int64_t step = state_.global_step;
  if (saver_->pending() && may_skip_save()) {
    settle_save(patience_with_saves());
    if (saver_->pending()) {
      stalled_seconds_ += watch.seconds();
      return saver_->skip(step);
    }
  }
  settle_save(CheckpointSaver::kUntilDone);
  fault_point("save", step);
  copy_buffers_from_first_rank(*parts_.model, *parts_.communicator);
  const NamedTensors optimizer_state = keeps_optimizer() ? optimizer_->state() : NamedTensors();
  saver_->save(step, [&] { return snapshot(optimizer_state); });
  // At the end there are no steps to write behind.
  const bool last = state_.control.should_training_stop || step >= arithmetic_.total_steps || signal_ != 0;
  if (last || !saver_->in_background()) settle_save(CheckpointSaver::kUntilDone);
  if (!last) stalled_seconds_ += watch.seconds();
}

void Trainer::settle_save(double patience) {
  if (!saver_->pending()) return;
  const WatchSection section(Section::kSave);
  const std::optional<PublishedCheckpoint> published = saver_->settle(patience);
  if (!published) return;
  if (!published->best.empty()) state_.best_model_checkpoint = published->best;
  if (config_.training.push_to_hub && config_.training.hub_strategy != "end") begin_push();
  callbacks_.on_save(state_, state_.control, published->folder);
}

void Trainer::stop_early(TrainOutcome& outcome) {
  outcome.signal = signal_;
  log::warning("stopping after step {}: signal {} ({})", state_.global_step, signal_, ::strsignal(signal_));
  try {
    settle_save(CheckpointSaver::kUntilDone);
  } catch (const PeerFailed&) {
    throw;
  } catch (const Error& error) {
    // The checkpoint that is to follow makes up for it.
    if (host_.rank() == 0) log::warning("an earlier checkpoint is not published: {}", error.what());
  }
  saver_->stop_on_failure();
  // The checkpoint keeps what the step has still to do: an evaluation, and the save after it that knows its result.
  const bool save_after_evaluation = state_.control.should_evaluate && state_.control.should_save;
  save_checkpoint(save_after_evaluation);
  callbacks_.on_train_end(state_, state_.control);
  const WatchSection section(Section::kFinalize);
  on_first_rank(host_, "record of the stop", [&] {
    write_record("preempted", static_cast<int>(ExitCode::kPreempted),
                 fmt::format("signal {} ({})", signal_, ::strsignal(signal_)));
    return std::string();
  });
}

void Trainer::finish(TrainOutcome& outcome, double seconds) {
  const std::int64_t steps = state_.global_step - first_step_;
  outcome.train_loss = totals_.steps > 0 ? totals_.loss / static_cast<double>(totals_.steps) : 0;
  const double samples = static_cast<double>(parts_.train_data->size()) * static_cast<double>(steps) /
                         static_cast<double>(arithmetic_.steps_per_epoch);
  OrderedJson metrics;
  add_speed(metrics, "train", seconds, samples, static_cast<double>(steps));
  metrics["total_flos"] = state_.total_flos;
  metrics["train_loss"] = outcome.train_loss;
  memory_.stop("train");
  memory_.add_to(metrics);
  add_position(metrics);
  outcome.train_metrics = metrics;
  if (stalled_seconds_ > 0 && host_.rank() == 0) {
    log::info("checkpoints before the last one held the steps up for {:.3f} s of {:.3f} s", stalled_seconds_, seconds);
  }
  callbacks_.on_log(state_, state_.control, state_.add_log(metrics));

  load_best(outcome);
  if (parts_.eval_data) outcome.eval_metrics = final_evaluation(outcome.best_step.value_or(state_.global_step));
  callbacks_.on_train_end(state_, state_.control);
  const WatchSection section(Section::kFinalize);
  copy_buffers_from_first_rank(*parts_.model, *parts_.communicator);
  check_replicas(*parts_.model, host_, "final weights");
  save_final_model();
  on_first_rank(host_, "result files", [&] {
    const fs::path& folder = store_.output_dir();
    Json train = outcome.train_metrics;
    train["train_samples"] = parts_.train_data->size();
    write_results(folder, "train", train);
    if (!outcome.eval_metrics.is_null()) {
      Json eval = outcome.eval_metrics;
      eval["eval_samples"] = parts_.eval_data->size();
      write_results(folder, "eval", eval);
    }
    write_trainer_state(folder / "trainer_state.json", state_);
    write_record("done", static_cast<int>(ExitCode::kDone), "");
    return std::string();
  });
}

void Trainer::load_best(TrainOutcome& outcome) {
  if (!config_.training.load_best_model_at_end) return;
  if (!state_.best_global_step || !state_.best_model_checkpoint) {
    log::warning("load_best_model_at_end: no evaluated checkpoint; the result is the model after step {}",
                 state_.global_step);
    return;
  }
  const std::int64_t best = *state_.best_global_step;
  if (step_of_name(fs::path(*state_.best_model_checkpoint).filename().string()) != best) {
    log::warning(
        "load_best_model_at_end: the best model, of step {}, has no checkpoint; the result is the model after "
        "step {}",
        best, state_.global_step);
    return;
  }
  outcome.best_step = best;
  const WatchSection section(Section::kFinalize);
  on_first_rank(host_, "load the best model", [&] {
    const fs::path folder = *state_.best_model_checkpoint;
    if (const std::string damage = checkpoint_damage(folder); !damage.empty()) {
      throw data_error(fmt::format("the best checkpoint {} is damaged: {}", folder.string(), damage),
                       "the last checkpoint holds the state after the last step");
    }
    if (best != state_.global_step) load_weights(*parts_.model, folder);
    if (config_.training.save_total_limit == 1) {
      for (const Checkpoint& checkpoint : store_.list()) {
        if (checkpoint.step != best) store_.remove(checkpoint.step);
      }
    }
    return std::string();
  });
  copy_from_first_rank(*parts_.model, parts_.communicator, host_);
  log::info("the result is the best model: step {}, {} {}", best, *config_.training.metric_for_best_model,
            *state_.best_metric);
}

OrderedJson Trainer::final_evaluation(std::int64_t weights_step) {
  // The same weights have the same results: an evaluation of the training is not repeated.
  for (auto record = state_.log_history.rbegin(); record != state_.log_history.rend(); ++record) {
    if (!record->contains("eval_loss") || record->at("step") != weights_step) continue;
    OrderedJson found = *record;
    found.erase("step");
    return found;
  }
  return evaluate();
}

void Trainer::save_final_model() {
  const WatchSection section(Section::kFinalize);
  on_first_rank(host_, "save the model", [&] {
    // Written aside, then moved file by file: a full disk leaves the folder without a half-written model.
    const fs::path& folder = store_.output_dir();
    const fs::path stage = folder / fmt::format(".stage-{}-{}", state_.global_step, ::getpid());
    fs::create_directories(stage);
    try {
      save_model(*parts_.model, stage);
      write_files(parts_.tokenizer_files, stage);
      for (const auto& entry : fs::directory_iterator(stage))
        rename_synced(entry.path(), folder / entry.path().filename());
    } catch (const std::exception&) {
      std::error_code ignored;
      fs::remove_all(stage, ignored);
      throw;
    }
    fs::remove(stage);
    return std::string();
  });
}

void Trainer::write_record(const std::string& state, std::optional<int> exit_code, const std::string& reason) const {
  RunRecord record = run_record(store_, state_);
  record.state = state;
  record.exit = exit_code;
  record.reason = reason;
  write_run_record(store_.output_dir(), record);
}

}  // namespace dtrain
