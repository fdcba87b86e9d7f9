#include "trainer/trainer.h"

#include <cmath>
#include <cstring>
#include <utility>

#include <ATen/Context.h>
#include <c10/core/CachingDeviceAllocator.h>

#include "configs/group_settings.h"
#include "core/error.h"
#include "core/fault.h"
#include "core/file.h"
#include "core/log.h"
#include "datasets/batch_loader.h"
#include "dist/agreement.h"
#include "dist/watchdog.h"
#include "trainer/callbacks/default_flow.h"
#include "trainer/checkpoint_saver.h"
#include "trainer/first_rank.h"
#include "trainer/model_parameters.h"
#include "trainer/optim/sharded_optimizer.h"
#include "trainer/position.h"
#include "trainer/replicas.h"
#include "trainer/reproducible.h"
#include "trainer/resume.h"
#include "trainer/speed.h"

namespace dtrain {
namespace {

std::vector<at::Tensor> trainable_parameters(const Model& model) {
  std::vector<at::Tensor> parameters;
  for (const at::Tensor& parameter : model.parameters()) {
    if (parameter.requires_grad()) parameters.push_back(parameter);
  }
  return parameters;
}

ReducerOptions reducer_options(const TrainingConfig& training) {
  ReducerOptions options;
  options.fixed_tree = training.reproducible;
  if (training.ddp_bucket_cap_mb) {
    options.bucket_bytes = *training.ddp_bucket_cap_mb << 20;
    options.first_bucket_bytes = std::min(options.first_bucket_bytes, options.bucket_bytes);
  }
  return options;
}

// Thrown on all ranks at the same batch of an evaluation when one of them has been told to stop.
struct EvaluationStopped {
  int signal = 0;
};

}  // namespace

std::int64_t resolved_steps(double setting, std::int64_t total_steps) {
  if (setting < 1) return static_cast<std::int64_t>(std::ceil(static_cast<double>(total_steps) * setting));
  return static_cast<std::int64_t>(setting);
}

Trainer::Trainer(TrainConfig config, TrainerParts parts)
    : config_(std::move(config)),
      parts_(std::move(parts)),
      host_(*parts_.host),
      shard_{.batch_size = config_.training.per_device_train_batch_size,
             .rank = host_.rank(),
             .world_size = host_.size(),
             .drop_last = config_.training.dataloader_drop_last,
             .even_batches = true},
      store_(expand_home(config_.training.output_dir)),
      memory_(!config_.training.skip_memory_metrics, parts_.device) {
  memory_.start();
  const TrainingConfig& training = config_.training;
  check_parts();
  arithmetic_ = (training.reproducible ? whole_step_arithmetic : step_arithmetic)(
      parts_.train_data->size(), shard_, training.gradient_accumulation_steps, training.num_train_epochs,
      training.max_steps);
  if (arithmetic_.micro_batches_per_epoch == 0) {
    throw data_error(fmt::format("{} training examples do not fill one batch of {} on each of {} ranks",
                                 parts_.train_data->size(), shard_.batch_size, shard_.world_size),
                     "set dataloader_drop_last = false, or lower per_device_train_batch_size");
  }
  precision_ = agreed_precision(wanted_precision(training), parts_.device, host_);
  callbacks_.add(std::make_shared<DefaultFlow>(FlowOptions{.logging_strategy = training.logging_strategy,
                                                           .eval_strategy = training.eval_strategy,
                                                           .save_strategy = training.save_strategy,
                                                           .logging_first_step = training.logging_first_step,
                                                           .eval_delay = training.eval_delay}));
  for (const auto& callback : parts_.callbacks) callbacks_.add(callback);

  make_model();
  make_optimizer();
  reducer_ =
      std::make_unique<Reducer>(trainable_parameters(*parts_.model), parts_.communicator, reducer_options(training));
  step_ = std::make_unique<TrainStep>(
      StepParts{*parts_.model, parameters_, *optimizer_, *reducer_, host_, scaler_, step_events()},
      StepOptions{.seed = static_cast<std::uint64_t>(training.seed),
                  .max_grad_norm = training.max_grad_norm,
                  .precision = precision_,
                  .device = parts_.device,
                  .agree_on_memory = training.auto_find_batch_size,
                  .reproducible = training.reproducible,
                  .skip_not_finite = config_.reliability.not_finite == "skip",
                  .loss_spike = config_.reliability.loss_spike});
  evaluation_options_ = evaluation_options(training, precision_, parts_.device);
  evaluation_options_.writer = parts_.writer;
  if (training.prediction_loss_only) parts_.metrics.clear();
  saver_ = std::make_unique<CheckpointSaver>(store_, host_, saver_options());
  make_state();
  callbacks_.on_init_end(state_, state_.control);
  memory_.stop("init");
}

Trainer::~Trainer() = default;

StepEvents Trainer::step_events() {
  return {.substep_end = [this] { callbacks_.on_substep_end(state_, state_.control); },
          .pre_optimizer_step = [this] { callbacks_.on_pre_optimizer_step(state_, state_.control); },
          .optimizer_step = [this] { callbacks_.on_optimizer_step(state_, state_.control); }};
}

RunFacts Trainer::facts() const {
  return {.world_size = host_.size(),
          .train_digest = parts_.train_data->digest(),
          .examples = parts_.train_data->size(),
          .arithmetic = config_.training.reproducible ? arithmetic_of(parts_.device) : "",
          .accumulations = accumulations_};
}

void Trainer::check_parts() const {
  const TrainingConfig& training = config_.training;
  DTRAIN_CHECK(parts_.train_data && parts_.collator && parts_.communicator, "a Trainer without data or communicator");
  if (!parts_.model && !parts_.model_init) throw usage_error("the Trainer got neither a model nor a model_init");
  if (parts_.make_optimizer && training.shard_optimizer) {
    throw usage_error(
        "training.shard_optimizer: the program brings an optimizer of its own, which dtrain cannot divide",
        "set shard_optimizer = false");
  }
  check_reproducible(training, host_.size());
  if (training.reproducible) agree(host_, "arithmetic", {{"arithmetic", arithmetic_of(parts_.device)}});
  if (training.eval_strategy != "no" && !parts_.eval_data) {
    throw usage_error(fmt::format("training.eval_strategy: \"{}\" needs evaluation data", training.eval_strategy),
                      "set training.eval_strategy = \"no\"");
  }
}

void Trainer::make_model() {
  const TrainingConfig& training = config_.training;
  if (!parts_.model) {
    at::manual_seed(static_cast<std::uint64_t>(training.seed));
    parts_.model = parts_.model_init();
    parts_.model->to(parts_.device);
  }
  check_reproducible(training, *parts_.model);
  freeze_parameters(*parts_.model, training.freeze);
  parameters_ = optimizer_parameters(*parts_.model);
  computing_parameters_ = computing_parameters(*parts_.model);
}

void Trainer::make_optimizer() {
  const TrainingConfig& training = config_.training;
  std::vector<GroupOptions> groups;
  std::vector<double> peaks = {training.learning_rate};
  for (const ParameterGroup& group : parameter_groups(training.parameter_groups)) {
    groups.push_back({group.pattern, group.weight_decay});
    peaks.push_back(group.learning_rate.value_or(training.learning_rate));
  }
  assign_groups(parameters_, groups);
  const OptimizerOptions options{.name = training.optim,
                                 .arguments = training.optim_args.value_or(""),
                                 .adamw = {.beta1 = training.adam_beta1,
                                           .beta2 = training.adam_beta2,
                                           .epsilon = training.adam_epsilon,
                                           .weight_decay = training.weight_decay}};
  if (parts_.make_optimizer) {
    log::info("the optimizer is the program's own, not training.optim");
    optimizer_ = parts_.make_optimizer(parameters_);
  } else if (training.shard_optimizer) {
    optimizer_ = make_sharded_optimizer(parameters_, options, parts_.communicator);
    log::info("optimizer state on this rank: {:.1f} MiB, divided over {} ranks",
              static_cast<double>(optimizer_->state_bytes()) / (1 << 20), host_.size());
  } else {
    optimizer_ = dtrain::make_optimizer(parameters_, options);
  }
  make_learning_rates(std::move(peaks));
}

void Trainer::make_learning_rates(std::vector<double> peaks) {
  const TrainingConfig& training = config_.training;
  if (parts_.make_schedule) {
    log::info("the schedule is the program's own, not training.lr_scheduler_type");
    learning_rates_ = std::make_unique<LearningRates>(parts_.make_schedule(arithmetic_.total_steps), std::move(peaks));
    return;
  }
  const ScheduleOptions schedule{.name = training.lr_scheduler_type,
                                 .warmup_steps = resolved_steps(training.warmup_steps, arithmetic_.total_steps),
                                 .total_steps = arithmetic_.total_steps,
                                 .learning_rate = training.learning_rate,
                                 .kwargs = training.lr_scheduler_kwargs};
  learning_rates_ = std::make_unique<LearningRates>(schedule, std::move(peaks));
}

void Trainer::make_state() {
  const TrainingConfig& training = config_.training;
  const std::int64_t total = arithmetic_.total_steps;
  state_.max_steps = total;
  state_.num_train_epochs = arithmetic_.epochs;
  state_.logging_steps = resolved_steps(training.logging_steps, total);
  state_.eval_steps = resolved_steps(training.eval_steps.value_or(training.logging_steps), total);
  state_.save_steps = resolved_steps(training.save_steps, total);
  state_.train_batch_size = training.per_device_train_batch_size;
  state_.is_world_process_zero = parts_.world.is_first();
  state_.is_local_process_zero = parts_.world.is_first_on_node();
}

void Trainer::resume() {
  accumulations_ = {config_.training.gradient_accumulation_steps};
  const std::optional<std::filesystem::path> folder = find_checkpoint(config_, store_, facts(), host_);
  if (!folder) return;
  log::info("resuming from {}", folder->string());
  accumulations_.merge(accumulations_of(*folder));
  load_weights(*parts_.model, *folder);
  const SafetensorsFile file(*folder / kOptimizerFile);
  optimizer_->load_state(file);
  learning_rates_->load_state(file);
  totals_.load_state(file);
  tokens_before_ = totals_.tokens_since_log;
  input_elements_before_ = totals_.input_elements_since_log;
  if (precision_ == Precision::kFloat16) scaler_.load_state(file);
  // The plan of the run (steps, intervals, identity) is that of the present settings; the past is the checkpoint's.
  state_ = read_trainer_state(*folder / "trainer_state.json");
  make_state();
  state_.control.should_training_stop = state_.global_step >= arithmetic_.total_steps;
  state_.control.should_epoch_stop = false;
}

TrainOutcome Trainer::train() {
  memory_.start();
  {
    const WatchSection section(Section::kLoad);
    resume();
    copy_from_first_rank(*parts_.model, parts_.communicator, host_);
    // Before any rank begins: what a rank writes when it fails must come after this.
    on_first_rank(host_, "run.json", [&] {
      write_record("running", std::nullopt, "");
      return std::string();
    });
  }
  first_step_ = state_.global_step;

  parts_.model->train();
  callbacks_.on_train_begin(state_, state_.control);
  since_train_begin_.restart();
  // What a stopped run left undone after its last step (an evaluation, say) comes first.
  act_on_control();
  if (config_.training.eval_on_start && state_.global_step == 0) (void)evaluate();
  const std::int64_t steps_per_epoch = arithmetic_.steps_per_epoch;
  std::int64_t first_micro_batch = state_.global_step % steps_per_epoch * config_.training.gradient_accumulation_steps;
  if (config_.training.ignore_data_skip) first_micro_batch = 0;
  for (std::int64_t epoch = state_.global_step / steps_per_epoch;
       epoch < arithmetic_.epochs && !state_.control.should_training_stop && signal_ == 0; ++epoch) {
    train_epoch(epoch, first_micro_batch);
    first_micro_batch = 0;
  }

  TrainOutcome outcome;
  if (signal_ == 0) settle_save(CheckpointSaver::kUntilDone);
  if (signal_ != 0) {
    stop_early(outcome);
  } else {
    finish(outcome, since_train_begin_.seconds());
  }
  outcome.global_step = state_.global_step;
  return outcome;
}

std::vector<std::int64_t> Trainer::order_of(std::int64_t epoch) const {
  const TrainingConfig& training = config_.training;
  const std::int64_t size = parts_.train_data->size();
  const auto seed = static_cast<std::uint64_t>(training.data_seed.value_or(training.seed));
  const std::string& strategy = training.train_sampling_strategy;
  if (strategy == "group_by_length") {
    std::vector<std::int64_t> lengths;
    for (std::int64_t i = 0; i < size; ++i) lengths.push_back(parts_.train_data->length(i));
    const std::int64_t ranks = training.reproducible ? shard_.world_size : 1;
    return length_grouped_order(lengths, shard_.batch_size * training.gradient_accumulation_steps * ranks, seed, epoch);
  }
  return sample_order(size, seed, epoch, strategy == "sequential" ? Sampling::kSequential : Sampling::kRandom);
}

void Trainer::train_epoch(std::int64_t epoch, std::int64_t first_micro_batch) {
  const TrainingConfig& training = config_.training;
  const auto tokens = [&](std::int64_t example) { return parts_.train_data->length(example); };
  const std::int64_t accumulated = training.gradient_accumulation_steps;
  const std::vector<std::int64_t> order = order_of(epoch);
  BatchLoader loader(
      parts_.train_data, parts_.collator,
      training.reproducible ? shard_steps(order, shard_, accumulated, tokens) : shard(order, shard_, tokens), shard_,
      training.reproducible ? 1 : accumulated, first_micro_batch, prefetched_batches(training), epoch);
  const std::int64_t micro_batches = arithmetic_.micro_batches_per_epoch;
  micro_batches_done_ = first_micro_batch;
  callbacks_.on_epoch_begin(state_, state_.control);
  while (micro_batches_done_ < micro_batches) {
    std::vector<Batch> group;
    std::optional<WatchSection> section(std::in_place, Section::kStep);
    host_.recorder().begin_step(state_.global_step + 1);
    const Stopwatch waiting;
    while (std::ssize(group) < training.gradient_accumulation_steps) {
      std::optional<Batch> batch = loader.next();
      if (!batch) break;
      group.push_back(std::move(*batch));
    }
    DTRAIN_CHECK(!group.empty(), "the loader of epoch {} ended after {} of {} micro-batches", epoch,
                 micro_batches_done_, micro_batches);
    micro_batches_done_ += std::ssize(group);
    state_.epoch =
        static_cast<double>(epoch) + static_cast<double>(micro_batches_done_) / static_cast<double>(micro_batches);
    train_one_step(group, waiting.seconds());
    if (signal_ == 0) settle_save(/*patience=*/0);
    log_if_due();
    section.reset();
    act_on_control();
    // The last step of an epoch is followed by the epoch's own events, which a stop must not lose.
    if (state_.control.should_training_stop || state_.control.should_epoch_stop) break;
    if (signal_ != 0 && micro_batches_done_ < micro_batches) return;
  }
  callbacks_.on_epoch_end(state_, state_.control);
  act_on_control();
}

void Trainer::train_one_step(const std::vector<Batch>& micro_batches, double waited) {
  const std::int64_t step = state_.global_step + 1;
  set_current_step(step);
  callbacks_.on_step_begin(state_, state_.control);
  fault_point("step", step);
  if (config_.training.torch_empty_cache_steps && !parts_.device.is_cpu() &&
      state_.global_step % *config_.training.torch_empty_cache_steps == 0) {
    at::getDeviceAllocator(parts_.device.type())->emptyCache();
  }
  const std::vector<double> learning_rates = learning_rates_->at(totals_.updates);
  const double learning_rate = learning_rates.front();  // what is logged
  const int received = parts_.received_signal ? parts_.received_signal() : 0;
  StepResult result = step_->run(micro_batches, step, learning_rates, received);
  result.spans.data = waited;

  signal_ = result.signal;
  last_grad_norm_ = result.grad_norm;
  last_learning_rate_ = learning_rate;
  totals_.add_step(result.loss, config_.training.logging_nan_inf_filter);
  totals_.tokens_since_log += result.tokens;
  totals_.input_elements_since_log += result.input_elements;
  if (result.updated) ++totals_.updates;
  // The Trainer's estimate: 6 operations per parameter outside the embeddings and per token, padding included.
  state_.total_flos += 6.0 * static_cast<double>(result.input_elements) * static_cast<double>(computing_parameters_);
  state_.global_step = step;
  const std::string& counted = config_.training.include_num_input_tokens_seen;
  if (counted != "no") state_.num_input_tokens_seen += counted == "all" ? result.input_elements : result.tokens;
  callbacks_.on_step_end(state_, state_.control,
                         StepReport{.loss = result.loss,
                                    .grad_norm = result.grad_norm,
                                    .learning_rate = learning_rate,
                                    .samples = result.examples,
                                    .tokens = result.tokens + std::exchange(tokens_before_, 0),
                                    .input_elements = result.input_elements + std::exchange(input_elements_before_, 0),
                                    .spans = result.spans});
  check_replicas_agree();
}

void Trainer::check_replicas_agree() {
  const std::int64_t step = state_.global_step;
  const std::int64_t interval = config_.reliability.check_interval;
  if (fault_damage("weights", step)) flip_bit(parameters_.front().value);
  if (fault_damage("optimizer", step)) flip_bit(optimizer_->state().front().second);
  if (interval == 0 || step % interval != 0) return;
  const bool divided = config_.training.shard_optimizer && host_.size() > 1;
  check_drift(parameters_, divided ? NamedTensors() : optimizer_->state(), step, host_);
}

void Trainer::log_if_due() {
  if (std::exchange(state_.control.should_log, false)) log_training();
}

void Trainer::act_on_control() {
  TrainerControl& control = state_.control;
  if (control.should_log) {  // at the end of an epoch
    const WatchSection section(Section::kStep);
    log_if_due();
  }
  // A run that has been told to stop leaves evaluation and saving to the run that goes on: the flags are in its
  // checkpoint.
  if (signal_ != 0) return;
  if (control.should_evaluate) {
    control.should_evaluate = false;
    OrderedJson record;
    try {
      record = evaluate_unless_stopped();
    } catch (const EvaluationStopped& stopped) {
      // Nothing of it counts: the run that goes on evaluates, and saves, first of all.
      signal_ = stopped.signal;
      control.should_evaluate = true;
      return;
    }
    if (learning_rates_->follow_metric()) follow_metric(record);
    const bool improved = config_.training.metric_for_best_model && update_best(record);
    if (config_.training.save_strategy == "best") control.should_save = improved;
  }
  if (control.should_save) save_checkpoint();
}

// The learning rate's part of an evaluation. Rank 0's value counts: a metric's last division may round differently on
// another machine.
void Trainer::follow_metric(const OrderedJson& record) {
  const WatchSection section(Section::kEval);
  double metric = best_model_metric(record);
  const std::string bytes = on_first_rank(host_, "metric of the schedule", [&] {
    return std::string(reinterpret_cast<const char*>(&metric), sizeof metric);
  });
  DTRAIN_CHECK(bytes.size() == sizeof metric, "rank 0 sent a metric of {} bytes", bytes.size());
  std::memcpy(&metric, bytes.data(), sizeof metric);
  const double before = learning_rates_->at(totals_.updates).front();
  learning_rates_->follow(metric);
  const double after = learning_rates_->at(totals_.updates).front();
  if (after != before) log::info("step {}: learning rate {:g}, was {:g}", state_.global_step, after, before);
}

void Trainer::add_position(OrderedJson& record) const {
  record["epoch"] = state_.epoch;
  if (config_.training.include_num_input_tokens_seen != "no") {
    record["num_input_tokens_seen"] = state_.num_input_tokens_seen;
  }
}

void Trainer::log_training() {
  if (totals_.steps_since_log == 0) return;
  fault_point("log", state_.global_step);
  OrderedJson record;
  record["loss"] = totals_.loss_since_log / static_cast<double>(totals_.steps_since_log);
  record["grad_norm"] = last_grad_norm_;
  record["learning_rate"] = last_learning_rate_;
  if (config_.reliability.not_finite == "skip") record["skipped_steps"] = totals_.steps - totals_.updates;
  add_position(record);
  totals_.loss_since_log = 0;
  totals_.steps_since_log = 0;
  totals_.tokens_since_log = 0;
  totals_.input_elements_since_log = 0;
  callbacks_.on_log(state_, state_.control, state_.add_log(std::move(record)));
}

OrderedJson Trainer::evaluate() {
  return evaluate([](std::int64_t /*done*/) {});
}

OrderedJson Trainer::evaluate_unless_stopped() {
  if (!parts_.received_signal || !parts_.eval_data) return evaluate();
  // Ranks may differ by one in their number of batches: they ask each other after those that all of them have.
  const std::int64_t size = config_.training.per_device_eval_batch_size;
  const std::int64_t common = (parts_.eval_data->size() + size - 1) / size / host_.size();
  return evaluate([this, common](std::int64_t done) {
    if (done > common) return;
    std::vector<std::int64_t> signal{parts_.received_signal()};
    host_.all_reduce_max("stop while evaluating", signal);
    if (signal[0] != 0) throw EvaluationStopped{static_cast<int>(signal[0])};
  });
}

OrderedJson Trainer::evaluate(const std::function<void(std::int64_t)>& after_batch) {
  if (!parts_.eval_data) throw usage_error("there is no evaluation data", "set data.eval");
  const WatchSection section(Section::kEval);
  fault_point("evaluate", state_.global_step);
  copy_buffers_from_first_rank(*parts_.model, *parts_.communicator);
  const EvaluationResult result =
      dtrain::evaluate(*parts_.model, parts_.eval_data, parts_.collator, parts_.metrics, host_, evaluation_options_,
                       [&](std::int64_t done, std::int64_t total) {
                         watch_progress(Section::kEval);
                         callbacks_.on_prediction_step(state_, state_.control, done, total);
                         after_batch(done);
                       });
  OrderedJson record = evaluation_record(result);
  add_position(record);
  callbacks_.on_log(state_, state_.control, state_.add_log(record));
  callbacks_.on_evaluate(state_, state_.control, record);
  // Rank 0 decides: a metric's last division may round differently on another machine.
  state_.control.should_training_stop = on_first_rank(host_, "stop after evaluation", [&] {
                                          return std::string(state_.control.should_training_stop ? "1" : "");
                                        }) == "1";
  return record;
}

PredictedLogits Trainer::predict(const std::shared_ptr<const Dataset>& data) {
  const Stopwatch watch;
  std::int64_t batches = 0;
  PredictedLogits predicted = predict_logits(*parts_.model, data, parts_.collator, host_, evaluation_options_,
                                             [&](std::int64_t done, std::int64_t total) {
                                               batches = total;
                                               callbacks_.on_prediction_step(state_, state_.control, done, total);
                                             });
  OrderedJson metrics;
  add_speed(metrics, "test", watch.seconds(), static_cast<double>(data->size()), static_cast<double>(batches));
  callbacks_.on_predict(state_, state_.control, metrics);
  return predicted;
}

}  // namespace dtrain
