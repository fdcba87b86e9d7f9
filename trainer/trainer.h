// Trainer: trains a Model on a Dataset over all ranks of a job, with the step order, records and files of the Hugging
// Face Trainer (hence the names of the settings). One step advances all ranks or none.
//
//   Trainer trainer(config, std::move(parts));
//   const TrainOutcome outcome = trainer.train();
//
// Every member function is collective: all ranks build a Trainer from equal settings and data and call the same
// functions. Errors that concern the job are thrown on all ranks alike; an exception of one rank only is for the caller
// to report. One thread per rank.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <c10/core/Device.h>

#include "configs/train_config.h"
#include "core/clock.h"
#include "core/json.h"
#include "datasets/collators/collator.h"
#include "datasets/dataset.h"
#include "datasets/sample_order.h"
#include "dist/communicator.h"
#include "dist/host_comm.h"
#include "dist/reducer.h"
#include "dist/world.h"
#include "trainer/callbacks/callback.h"
#include "trainer/checkpoint/checkpoint_store.h"
#include "trainer/checkpoint/trainer_state.h"
#include "trainer/evaluation.h"
#include "trainer/loop_totals.h"
#include "trainer/memory_metrics.h"
#include "trainer/metrics/metric.h"
#include "trainer/models/model.h"
#include "trainer/optim/grad_scaler.h"
#include "trainer/optim/learning_rates.h"
#include "trainer/optim/optimizer.h"
#include "trainer/train_step.h"

namespace dtrain {

class CheckpointSaver;
struct CheckpointSnapshot;
struct RunFacts;
struct SaverOptions;

struct TrainerParts {
  std::shared_ptr<Model> model;  // on `device`; the weights of rank 0 are copied to the other ranks
  // Makes the model instead, on the CPU, after LibTorch's generator has been set to training.seed (the Trainer's
  // model_init).
  std::function<std::shared_ptr<Model>()> model_init = {};
  std::shared_ptr<const Dataset> train_data;
  std::shared_ptr<const Dataset> eval_data;  // may be null
  std::shared_ptr<const Collator> collator;
  std::vector<std::unique_ptr<Metric>> metrics;
  std::shared_ptr<const TextWriter> writer;          // how evaluation writes texts; null: it writes none
  std::vector<std::shared_ptr<Callback>> callbacks;  // run after the default flow, in this order
  // An optimizer and a schedule of your own (the Trainer's optimizers) instead of those that training.optim and
  // training.lr_scheduler_type name. The parameters come with groups and decay as the settings say; the schedule is
  // the factor on the peak rates.
  std::function<std::unique_ptr<Optimizer>(std::vector<NamedParameter>)> make_optimizer = {};
  std::function<LrSchedule(std::int64_t total_steps)> make_schedule = {};
  std::vector<std::pair<std::string, std::string>> tokenizer_files;  // name, content: part of every checkpoint
  World world;
  HostComm* host = nullptr;  // outlives the Trainer
  std::shared_ptr<Communicator> communicator;
  c10::Device device = c10::Device(c10::kCPU);
  // The number of a signal that asks this rank to stop, else 0. Asked once per step and batch of an evaluation within
  // the training. May be empty.
  std::function<int()> received_signal;
};

struct TrainOutcome {
  std::int64_t global_step = 0;
  double train_loss = 0;                  // mean over the steps of this run of their mean loss
  OrderedJson train_metrics;              // train_runtime, ..., train_loss, epoch
  OrderedJson eval_metrics;               // of the weights that were saved; null without evaluation data
  std::optional<std::int64_t> best_step;  // whose weights are the result, with load_best_model_at_end
  int signal = 0;                         // not 0: stopped by this signal, with a checkpoint published
};

class Trainer {
 public:
  // `config` is resolved (configs/load_config.h). Settings outside [training] and [callbacks] are only kept. Throws
  // Error(kUsage) for parts that contradict each other or the settings.
  Trainer(TrainConfig config, TrainerParts parts);
  ~Trainer();
  Trainer(const Trainer&) = delete;
  Trainer& operator=(const Trainer&) = delete;

  // Collective. Resumes when resume_from_checkpoint is set, trains, saves the final model and the result files into
  // output_dir. After a signal it stops at the next step that all ranks agree on, publishes a checkpoint and returns.
  TrainOutcome train();

  // Collective. Evaluates the model as it is; the record (eval_loss, eval_<metric>, ..., epoch) is logged.
  OrderedJson evaluate();

  // Collective. The logits for `data`, on rank 0, as predict_logits gives them; fires on_predict with the speed
  // (test_runtime, ...).
  [[nodiscard]] PredictedLogits predict(const std::shared_ptr<const Dataset>& data);

  // Collective. Fires on_push_begin, for a program that uploads the result; checkpoints that are uploaded (push_to_hub,
  // hub_strategy) fire it by themselves.
  void begin_push() { callbacks_.on_push_begin(state_, state_.control); }

  [[nodiscard]] Model& model() { return *parts_.model; }
  [[nodiscard]] const TrainerState& state() const { return state_; }
  // The step of the checkpoint that train() went on from; 0 without one.
  [[nodiscard]] std::int64_t first_step() const { return first_step_; }
  [[nodiscard]] const StepArithmetic& arithmetic() const { return arithmetic_; }
  [[nodiscard]] const ShardOptions& shard_options() const { return shard_; }

 private:
  void check_parts() const;
  void make_model();
  void make_optimizer();
  void make_learning_rates(std::vector<double> peaks);
  void make_state();
  void resume();
  [[nodiscard]] StepEvents step_events();
  [[nodiscard]] RunFacts facts() const;
  [[nodiscard]] std::vector<std::int64_t> order_of(std::int64_t epoch) const;
  void train_epoch(std::int64_t epoch, std::int64_t first_micro_batch);
  void train_one_step(const std::vector<Batch>& micro_batches, double waited);
  void check_replicas_agree();
  void act_on_control();
  // `after_batch` gets the number of batches that this rank has evaluated; what it throws leaves the evaluation.
  OrderedJson evaluate(const std::function<void(std::int64_t done)>& after_batch);
  // Throws EvaluationStopped after the batch at which a signal has reached some rank.
  OrderedJson evaluate_unless_stopped();
  void log_if_due();  // collective, in a section of the watchdog: the ranks gather their times
  void log_training();
  void add_position(OrderedJson& record) const;  // epoch, and the tokens seen when they are wanted
  [[nodiscard]] double best_model_metric(const OrderedJson& record) const;
  [[nodiscard]] bool update_best(const OrderedJson& record);
  void follow_metric(const OrderedJson& record);
  // `save_again` is should_save as the checkpoint keeps it: whether resuming from it saves at once. The checkpoint is
  // published when settle_save() has said so.
  void save_checkpoint(bool save_again = false);
  [[nodiscard]] bool may_skip_save() const;
  [[nodiscard]] CheckpointSnapshot snapshot(const NamedTensors& optimizer_state) const;
  [[nodiscard]] SaverOptions saver_options() const;
  [[nodiscard]] double patience_with_saves() const;
  void settle_save(double patience);
  // Checkpoints without are save_only_model's; the one that a signal asks for is there to go on from.
  [[nodiscard]] bool keeps_optimizer() const { return !config_.training.save_only_model || signal_ != 0; }
  void finish(TrainOutcome& outcome, double seconds);
  void load_best(TrainOutcome& outcome);
  void stop_early(TrainOutcome& outcome);
  void save_final_model();
  [[nodiscard]] OrderedJson final_evaluation(std::int64_t weights_step);
  void write_record(const std::string& state, std::optional<int> exit_code, const std::string& reason) const;

  TrainConfig config_;
  TrainerParts parts_;
  HostComm& host_;
  ShardOptions shard_;
  StepArithmetic arithmetic_;
  CheckpointStore store_;
  std::unique_ptr<CheckpointSaver> saver_;
  CallbackList callbacks_;
  TrainerState state_;
  LoopTotals totals_;
  MemoryMetrics memory_;

  std::vector<NamedParameter> parameters_;
  std::int64_t computing_parameters_ = 0;  // elements outside the embeddings
  std::unique_ptr<Optimizer> optimizer_;
  std::unique_ptr<Reducer> reducer_;
  Precision precision_ = Precision::kFloat32;
  GradScaler scaler_;
  std::unique_ptr<LearningRates> learning_rates_;
  std::unique_ptr<TrainStep> step_;
  EvaluationOptions evaluation_options_;

  std::int64_t micro_batches_done_ = 0;  // of the current epoch
  std::int64_t first_step_ = 0;          // global_step at which this process started
  // Of the steps between the last log and the checkpoint that the run goes on from: part of its first report.
  std::int64_t tokens_before_ = 0;
  std::int64_t input_elements_before_ = 0;
  std::set<std::int64_t> accumulations_;  // RunFacts::accumulations
  double last_grad_norm_ = 0;
  double last_learning_rate_ = 0;
  Stopwatch since_train_begin_;
  double stalled_seconds_ = 0;  // that steps waited for checkpoints
  int signal_ = 0;
};

// A setting that is a number of steps, or below 1 a share of all steps (rounded up), as steps.
[[nodiscard]] std::int64_t resolved_steps(double setting, std::int64_t total_steps);

}  // namespace dtrain
