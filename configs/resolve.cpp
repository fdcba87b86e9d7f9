// resolve: the rules between settings. Those of [training] are transformers.TrainingArguments' own (__post_init__ and
// _validate_args of 5.17), made stricter where that lets a contradiction pass.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <initializer_list>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "configs/collator_names.h"
#include "configs/group_settings.h"
#include "configs/load_config.h"
#include "configs/metric_names.h"
#include "configs/setting.h"
#include "core/error.h"
#include "core/file.h"
#include "core/hub_folder.h"

namespace dtrain {
namespace {

// Schedules that the evaluations drive, not the steps.
bool follows_metric(const TrainingConfig& training) {
  return training.lr_scheduler_type == "reduce_lr_on_plateau" || training.lr_scheduler_type == "greedy";
}

class Resolver {
 public:
  Resolver(TrainConfig& config, Origins& origins, Parts parts)
      : config_(config), origins_(origins), names_are_open_(parts == Parts::kOwn || config.model.plugin.has_value()) {}

  void run() {
    fill_in();
    check_model();
    check_metrics();
    check_data();
    check_training();
    check_groups();
    check_strategies();
    check_hub();
    check_schedule();
    check_best_model();
  }

 private:
  // `names` are the settings involved; the message starts with the place of the first one that somebody wrote.
  [[noreturn]] void fail(std::initializer_list<const char*> names, const std::string& reason,
                         const std::string& hint) const {
    for (const char* name : names) {
      const auto found = origins_.find(name);
      if (found == origins_.end()) continue;
      if (found->second.kind == Origin::Kind::kFile || found->second.kind == Origin::Kind::kCommandLine) {
        throw usage_error(fmt::format("{}: {}: {}", found->second.where, name, reason), hint);
      }
    }
    throw usage_error(fmt::format("{}: {}", *names.begin(), reason), hint);
  }

  void derived(const char* name, const char* from) { origins_[name] = Origin{Origin::Kind::kDerived, from}; }

  void fill_in() {
    TrainingConfig& training = config_.training;
    // A TorchScript file has no tokenizer beside it.
    if (!config_.tokenizer.path && !config_.model.path.empty() && !config_.model.path.ends_with(".pt")) {
      config_.tokenizer.path = config_.model.path;
      derived("tokenizer.path", "model.path");
    }
    if (!config_.model.num_labels && !config_.data.labels.empty()) {
      config_.model.num_labels = static_cast<std::int64_t>(config_.data.labels.size());
      derived("model.num_labels", "data.labels");
    }
    if (training.push_to_hub && !training.hub_model_id) {
      const std::filesystem::path folder =
          std::filesystem::absolute(expand_home(training.output_dir)).lexically_normal();
      training.hub_model_id = (folder.has_filename() ? folder : folder.parent_path()).filename().string();
      derived("training.hub_model_id", "training.output_dir");
    }
    if (!training.data_seed) {
      training.data_seed = training.seed;
      derived("training.data_seed", "training.seed");
    }
    if (training.eval_strategy == "steps" && training.eval_steps.value_or(0) == 0) {
      training.eval_steps = training.logging_steps;
      derived("training.eval_steps", "training.logging_steps");
    }
    if ((training.load_best_model_at_end || follows_metric(training)) && !training.metric_for_best_model) {
      training.metric_for_best_model = "loss";
      derived("training.metric_for_best_model",
              training.load_best_model_at_end ? "training.load_best_model_at_end" : "training.lr_scheduler_type");
    }
    if (training.metric_for_best_model && !training.greater_is_better) {
      training.greater_is_better = !less_is_better(*training.metric_for_best_model);
      derived("training.greater_is_better", "training.metric_for_best_model");
    }
  }

  // The settings under [data] that contradict the task.
  void check_data() const {
    const DataConfig& data = config_.data;
    const std::string& task = config_.model.task;
    if (data.eval && data.eval_fraction) {
      fail({"data.eval_fraction", "data.eval"}, "there is evaluation data of its own", "remove one of the two");
    }
    if (data.mask_replace_prob + data.random_replace_prob > 1) {
      fail({"data.random_replace_prob", "data.mask_replace_prob"}, "the two shares are more than 1 together",
           "lower one of them");
    }
    const std::vector<std::string>& choices = collators_of_task(task);
    if (data.collator == "auto" || std::find(choices.begin(), choices.end(), data.collator) != choices.end()) return;
    if (!is_collator_name(data.collator)) {
      if (names_are_open_) return;
      const std::string nearest = nearest_name(data.collator, collator_names());
      fail({"data.collator"}, fmt::format("\"{}\" is not a known choice", data.collator),
           fmt::format("{}choose one of: auto, {}",
                       nearest.empty() ? "" : fmt::format("did you mean \"{}\"? ", nearest), fmt::join(choices, ", ")));
    }
    fail({"data.collator", "model.task"}, fmt::format("\"{}\" does not fit the task {}", data.collator, task),
         fmt::format("leave it out, or write one of: {}", fmt::join(choices, ", ")));
  }

  void check_model() const {
    const ModelConfig& model = config_.model;
    if (model.name && !model.plugin) {
      fail({"model.name"}, "names a model of a plugin, and there is none", "set model.plugin to the plugin's library");
    }
    if (model.task != "sequence-classification" && model.problem_type &&
        *model.problem_type != "single_label_classification") {
      fail({"model.problem_type", "model.task"}, fmt::format("the task {} has one class for each token", model.task),
           "remove model.problem_type");
    }
    const auto& labels = config_.data.labels;
    if (!labels.empty() && *model.num_labels != static_cast<std::int64_t>(labels.size())) {
      fail({"model.num_labels", "data.labels"},
           fmt::format("model.num_labels is {}, but data.labels names {}", *model.num_labels, labels.size()),
           "leave model.num_labels out: it follows from data.labels");
    }
    if (!model.problem_type) return;
    if (*model.problem_type == "single_label_classification" && model.num_labels == 1) {
      fail({"model.problem_type", "model.num_labels"}, "a single class leaves nothing to classify",
           "set model.num_labels to the number of classes, or model.problem_type to \"regression\"");
    }
    if (*model.problem_type == "regression") {
      if (!labels.empty()) {
        fail({"data.labels", "model.problem_type"}, "regression has values, not classes with names",
             "remove data.labels, or set model.problem_type to \"single_label_classification\"");
      }
    }
  }

  // What the metrics judge must be what the model predicts.
  void check_metrics() const {
    const ModelConfig& model = config_.model;
    const bool numbers = model.problem_type == "regression" || (!model.problem_type && model.num_labels == 1);
    unsigned predicts = predicts_of_task(model.task, numbers);
    // config.json may say that it is a regression.
    if (!model.problem_type && !model.num_labels && predicts == kPredictsClasses) predicts |= kPredictsNumbers;
    if (model.problem_type == "multi_label_classification") predicts |= kPredictsNumbers;
    for (const std::string& spec : config_.metrics.compute) {
      const std::string name = spec.substr(0, spec.find(':'));
      const MetricName* known = find_metric(name);
      if (known == nullptr && !names_are_open_) fail_unknown_metric(spec, name);
      if (known == nullptr) continue;
      if (known->predicts == kPredictsTexts && model.task == "seq2seq-lm" && !config_.training.predict_with_generate) {
        fail({"metrics.compute", "training.predict_with_generate"},
             fmt::format("\"{}\" judges texts, and evaluation writes none", spec),
             "set training.predict_with_generate = true");
      }
      if ((known->predicts & predicts) != 0) continue;
      fail({"metrics.compute", "model.task", "model.problem_type"},
           fmt::format("\"{}\" does not judge {}", spec,
                       numbers ? "a regression" : fmt::format("the task {}", model.task)),
           fmt::format("use one of {}", metric_names_for(predicts)));
    }
  }

  [[noreturn]] void fail_unknown_metric(const std::string& spec, const std::string& name) const {
    std::vector<std::string_view> names;
    for (const MetricName& each : metric_table()) names.push_back(each.name);
    const std::string nearest = nearest_name(name, names);
    fail({"metrics.compute"}, fmt::format("\"{}\" is not a known metric", spec),
         fmt::format("{}known: {}", nearest.empty() ? "" : fmt::format("did you mean \"{}\"? ", nearest),
                     fmt::join(names, ", ")));
  }

  void check_training() const {
    const TrainingConfig& training = config_.training;
    const auto needs_writing_task = [&](bool is_set, const char* name) {
      if (!is_set || config_.model.task == "seq2seq-lm") return;
      fail({name, "model.task"}, fmt::format("the task {} writes no texts", config_.model.task),
           "remove it, or set model.task = \"seq2seq-lm\"");
    };
    needs_writing_task(training.predict_with_generate, "training.predict_with_generate");
    needs_writing_task(training.generation_max_length.has_value(), "training.generation_max_length");
    needs_writing_task(training.generation_num_beams.has_value(), "training.generation_num_beams");
    needs_writing_task(training.generation_config.has_value(), "training.generation_config");
    if (training.predict_with_generate && training.prediction_loss_only) {
      fail({"training.prediction_loss_only", "training.predict_with_generate"},
           "the loss alone is wanted, and so are texts", "remove one of the two");
    }
    if (training.bf16 && training.fp16) {
      fail({"training.fp16", "training.bf16"}, "fp16 and bf16 cannot both be true", "set one of them to false");
    }
    if (training.bf16_full_eval && training.fp16_full_eval) {
      fail({"training.fp16_full_eval", "training.bf16_full_eval"},
           "fp16_full_eval and bf16_full_eval cannot both be true", "set one of them to false");
    }
    if (training.max_steps == 0) {
      fail({"training.max_steps"}, "0 steps would train nothing", "-1 leaves the number of steps to num_train_epochs");
    }
    const std::vector<std::string>& reports = training.report_to;
    if (reports.size() > 1 && std::find(reports.begin(), reports.end(), "none") != reports.end()) {
      fail({"training.report_to"}, "\"none\" cannot stand beside others", "remove \"none\", or everything else");
    }
    if (training.dataloader_prefetch_factor && training.dataloader_num_workers == 0) {
      fail({"training.dataloader_prefetch_factor"}, "needs dataloader_num_workers > 0",
           "set training.dataloader_num_workers = 1, or remove dataloader_prefetch_factor");
    }
  }

  void check_hub() const {
    const TrainingConfig& training = config_.training;
    if (training.hub_model_id && !is_repository_name(*training.hub_model_id)) {
      fail({"training.hub_model_id", "training.push_to_hub"},
           fmt::format("\"{}\" cannot be the name of a repository", *training.hub_model_id),
           "write \"user/name\" with letters, digits, -, _ and .");
    }
    if (training.hub_revision && (training.hub_revision->empty() || training.hub_revision->front() == '-')) {
      fail({"training.hub_revision"}, fmt::format("\"{}\" cannot be the name of a branch", *training.hub_revision),
           "leave it out for the main branch");
    }
  }

  void check_groups() const {
    try {
      (void)parameter_groups(config_.training.parameter_groups);
    } catch (const Error& error) {
      fail({"training.parameter_groups"}, error.what(), error.hint());
    }
  }

  void check_schedule() const {
    const TrainingConfig& training = config_.training;
    if (!follows_metric(training)) return;
    const std::string& name = training.lr_scheduler_type;
    if (training.eval_strategy == "no") {
      fail({"training.lr_scheduler_type", "training.eval_strategy"},
           fmt::format("\"{}\" follows the evaluations, and eval_strategy is \"no\"", name),
           "set training.eval_strategy to \"steps\" or \"epoch\"");
    }
    if (training.warmup_steps != 0) {
      fail({"training.warmup_steps", "training.lr_scheduler_type"}, fmt::format("\"{}\" has no warm-up", name),
           "remove warmup_steps, or choose another lr_scheduler_type");
    }
    // The Trainer would lower the rate as a metric that should grow does so.
    const auto mode = training.lr_scheduler_kwargs.find("mode");
    const std::string given = mode != training.lr_scheduler_kwargs.end() && mode->is_string() ? *mode : Json("min");
    const std::string wanted = *training.greater_is_better ? "max" : "min";
    if (given != wanted && (given == "min" || given == "max")) {
      fail({"training.lr_scheduler_kwargs", "training.metric_for_best_model", "training.lr_scheduler_type"},
           fmt::format("mode \"{}\" of \"{}\" contradicts greater_is_better = {}", given, name,
                       *training.greater_is_better),
           fmt::format("set training.lr_scheduler_kwargs = {{ mode = \"{}\" }}", wanted));
    }
  }

  void check_strategies() const {
    const TrainingConfig& training = config_.training;
    const char* const kHint = "give a whole number of steps, or a share below 1";
    if (training.logging_strategy == "steps" && training.logging_steps == 0) {
      fail({"training.logging_steps"}, "logging_strategy \"steps\" needs logging_steps above 0", kHint);
    }
    if (training.eval_strategy == "steps" && *training.eval_steps == 0) {
      fail({"training.eval_steps", "training.eval_strategy"},
           "eval_strategy \"steps\" needs eval_steps or logging_steps above 0", kHint);
    }
    if (training.save_strategy == "steps" && training.save_steps == 0) {
      fail({"training.save_steps"}, "save_strategy \"steps\" needs save_steps above 0", kHint);
    }
  }

  void check_best_model() const {
    const TrainingConfig& training = config_.training;
    if (training.metric_for_best_model) check_metric_name(*training.metric_for_best_model);
    if (config_.callbacks.early_stopping_patience) {
      if (training.eval_strategy == "no") {
        fail({"callbacks.early_stopping_patience", "training.eval_strategy"}, "counts evaluations, and there are none",
             "set training.eval_strategy to \"steps\" or \"epoch\"");
      }
      if (!training.metric_for_best_model) {
        fail({"callbacks.early_stopping_patience"}, "needs metric_for_best_model",
             "set training.metric_for_best_model, for example to \"loss\"");
      }
    }
    if (training.save_strategy == "best") {
      if (training.eval_strategy == "no") {
        fail({"training.save_strategy"}, "\"best\" saves after evaluations, and eval_strategy is \"no\"",
             "set training.eval_strategy to \"steps\" or \"epoch\"");
      }
      if (!training.metric_for_best_model) {
        fail({"training.save_strategy"}, "\"best\" needs metric_for_best_model",
             "set training.metric_for_best_model, for example to \"loss\"");
      }
      return;
    }
    if (!training.load_best_model_at_end) return;
    if (training.eval_strategy != training.save_strategy) {
      fail({"training.load_best_model_at_end"},
           fmt::format("needs eval_strategy and save_strategy to be equal (or save_strategy \"best\"); they are \"{}\" "
                       "and \"{}\"",
                       training.eval_strategy, training.save_strategy),
           "each checkpoint must have been evaluated to know which one is the best");
    }
    if (training.eval_strategy == "no") {
      fail({"training.load_best_model_at_end"}, "needs evaluations and checkpoints, and both strategies are \"no\"",
           "set training.eval_strategy and training.save_strategy to \"epoch\" or \"steps\"");
    }
    if (training.eval_strategy == "steps") check_save_steps();
  }

  // Save steps must be a multiple of evaluation steps. Shares are compared as the Trainer does, times one million.
  void check_save_steps() const {
    constexpr double kShareUnit = 1e6;
    const double save = config_.training.save_steps;
    const double eval = *config_.training.eval_steps;
    if (std::fmod(save, eval) == 0) return;
    if ((save < 1) != (eval < 1)) {
      fail({"training.save_steps", "training.eval_steps", "training.load_best_model_at_end"},
           fmt::format("save_steps {} and eval_steps {}: one is a share of all steps, the other a number of steps, so "
                       "load_best_model_at_end cannot make sure that each checkpoint is evaluated",
                       save, eval),
           "give both as shares, or both as numbers of steps");
    }
    if (save < 1 && std::fmod(save * kShareUnit, eval * kShareUnit) == 0) return;
    fail({"training.save_steps", "training.eval_steps", "training.load_best_model_at_end"},
         fmt::format("save_steps {} is not a multiple of eval_steps {}, as load_best_model_at_end needs", save, eval),
         "each checkpoint must have been evaluated to know which one is the best");
  }

  void check_metric_name(const std::string& metric) const {
    if (names_are_open_) return;  // the first evaluation tells
    const std::string name = metric.starts_with("eval_") ? metric.substr(5) : metric;
    std::vector<std::string> known = {"loss"};
    if (!config_.training.prediction_loss_only) {
      for (const std::string& spec : config_.metrics.compute) {
        for (std::string& result : metric_result_names(spec)) known.push_back(std::move(result));
      }
    }
    if (std::find(known.begin(), known.end(), name) != known.end()) return;
    fail({"training.metric_for_best_model"},
         fmt::format("\"{}\" is not computed; evaluation gives: {}", metric, fmt::join(known, ", ")),
         "add it to metrics.compute, or choose another one");
  }

  TrainConfig& config_;
  Origins& origins_;
  bool names_are_open_;  // of collators and metrics: not all are in dtrain's own tables
};

}  // namespace

void resolve(TrainConfig& config, Origins& origins, Parts parts) { Resolver(config, origins, parts).run(); }

}  // namespace dtrain
