#include "launcher/model_commands.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <optional>

#include <fmt/ranges.h>

#include "core/file.h"
#include "core/log.h"
#include "launcher/job_setup.h"
#include "launcher/prediction_text.h"
#include "launcher/task_inputs.h"
#include "launcher/token_progress.h"
#include "trainer/checkpoint/run_json.h"
#include "trainer/evaluation.h"
#include "trainer/first_rank.h"
#include "trainer/memory_metrics.h"

namespace dtrain {
namespace fs = std::filesystem;
namespace {

// The settings of the run that made the model, pointed at that model and the wanted data.
TrainConfig pointed_at(TrainConfig config, const Arguments& arguments) {
  const fs::path output_dir = expand_home(config.training.output_dir);
  std::error_code ignored;
  if (arguments.model.empty() && !fs::exists(output_dir / "config.json", ignored)) {
    throw usage_error(fmt::format("{} holds no trained model", output_dir.string()),
                      fmt::format("train it with dtrain {}, or name a model with --model", arguments.file));
  }
  config.model.path = arguments.model.empty() ? output_dir.string() : arguments.model;
  config.model.random_init = false;
  if (!arguments.data.empty()) {
    config.data.eval = arguments.data;
    config.data.eval_fraction.reset();
    config.data.eval_samples.reset();
  }
  if (!arguments.out.empty()) {
    // Hours of predictions must not end at a path with a typing error.
    const fs::path folder = fs::absolute(expand_home(arguments.out)).parent_path();
    if (!fs::is_directory(folder, ignored)) {
      throw usage_error(fmt::format("--out {}: there is no folder {}", arguments.out, folder.string()),
                        "create it, or name another file");
    }
  }
  if (!config.data.eval && !config.data.eval_fraction)
    throw usage_error("there is no data", "set data.eval, or name a file with --data");
  return config;
}

// bf16_full_eval and fp16_full_eval. Products still need autocast: some kernels give float32 results whatever they get.
std::optional<Precision> cast_for_evaluation(Model& model, const TrainingConfig& training) {
  if (!training.bf16_full_eval && !training.fp16_full_eval) return std::nullopt;
  model.to(training.bf16_full_eval ? at::kBFloat16 : at::kHalf);
  return training.bf16_full_eval ? Precision::kBfloat16 : Precision::kFloat16;
}

void print_record(const OrderedJson& record) {
  std::size_t width = 0;
  for (const auto& [key, value] : record.items()) width = std::max(width, key.size());
  for (const auto& [key, value] : record.items()) {
    fmt::print("{:<{}}  {}\n", key, width,
               value.is_number_float() ? fmt::format("{:.4f}", value.get<double>()) : value.dump());
  }
}

// Empty where the logits are not.
std::string logits_lines(const PredictedLogits& predicted, const Inputs& inputs) {
  if (!predicted.logits.defined()) return {};
  const std::vector<std::string> names = class_names(inputs.model->config_json());
  const auto width = static_cast<std::size_t>(predicted.logits.size(1));
  const float* row = predicted.logits.const_data_ptr<float>();
  std::string text;
  for (std::size_t i = 0; i < predicted.label_counts.size(); ++i) {
    const std::size_t size = width * static_cast<std::size_t>(predicted.label_counts[i]);
    const auto index = static_cast<std::int64_t>(i);
    text += inputs.task == Task::kTokenClassification ? tags_text(index, {row, size}, names)
                                                      : prediction_text(index, {row, size}, inputs.problem_type, names);
    text += "\n";
    row += size;
  }
  return text;
}

std::string texts_lines(const std::vector<std::string>& texts) {
  std::string lines;
  for (std::size_t i = 0; i < texts.size(); ++i) {
    lines += OrderedJson{{"index", i}, {"text", texts[i]}}.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
    lines += "\n";
  }
  return lines;
}

}  // namespace

ExitCode run_model(const Arguments& arguments, MpiSession& session) {
  const World& world = session.world();
  HostComm& host = session.host();
  const bool predicts = arguments.command == Arguments::Command::kPredict;
  const TrainConfig config = pointed_at(agreed_config(arguments, world, host), arguments);
  host.set_deadline(static_cast<double>(config.training.ddp_timeout));
  const Task task = task_named(config.model.task);
  if (predicts && is_language_model(task) && task != Task::kSeq2SeqLm) {
    throw usage_error(fmt::format("predict: the task {} has no prediction for a text", config.model.task),
                      "use dtrain evaluate for its loss and perplexity");
  }
  const JobDevice job = set_up_device(config.training, arguments, session);
  MemoryMetrics memory(!config.training.skip_memory_metrics, job.device);
  memory.start();
  const Inputs inputs = load_inputs(config, world, host, job.threads * world.local_size,
                                    {.train_data = false, .eval_labels = !arguments.unlabelled});
  if (!inputs.report.missing.empty()) {
    throw data_error(fmt::format("the model in {} was not trained for this task: it has no {}", config.model.path,
                                 fmt::join(inputs.report.missing, ", ")),
                     "name a trained model with --model");
  }
  inputs.model->to(job.device);
  const Precision precision = cast_for_evaluation(*inputs.model, config.training)
                                  .value_or(agreed_precision(wanted_precision(config.training), job.device, host));
  memory.stop("init");
  EvaluationOptions options = evaluation_options(config.training, precision, job.device);
  if (predicts || config.training.predict_with_generate) options.writer = text_writer(config, inputs);
  if (world.is_first()) {
    log::info("{}: {} examples with the model in {}", predicts ? "predict" : "evaluate", inputs.eval_data->size(),
              config.model.path);
  }
  // Of rank 0's own batches: all ranks have about as many.
  TokenDisplay display(predicts ? "predicting" : "evaluating", world.is_first());
  const auto show = [&](std::int64_t done, std::int64_t all) {
    display.show(inputs.eval_data->size() * done / all, inputs.eval_data->size());
  };
  const fs::path output_dir = expand_home(config.training.output_dir);
  if (predicts) {
    const std::string lines =
        task == Task::kSeq2SeqLm
            ? texts_lines(predict_texts(*inputs.model, inputs.eval_data, inputs.collator, host, options, show))
            : logits_lines(predict_logits(*inputs.model, inputs.eval_data, inputs.collator, host, options, show),
                           inputs);
    on_first_rank(host, "predictions", [&] {
      const fs::path path = arguments.out.empty() ? output_dir / "predictions.jsonl" : expand_home(arguments.out);
      if (arguments.out.empty()) fs::create_directories(output_dir);
      replace_file(path, lines);
      fmt::print("{} predictions are in {}\n", inputs.eval_data->size(), path.string());
      return std::string();
    });
  } else {
    memory.start();
    const EvaluationResult result =
        evaluate(*inputs.model, inputs.eval_data, inputs.collator, make_metrics(config, inputs), host, options, show);
    memory.stop("eval");
    on_first_rank(host, "results", [&] {
      OrderedJson record = evaluation_record(result);
      memory.add_to(record);
      record["eval_samples"] = result.examples;
      print_record(record);
      if (!arguments.out.empty()) replace_file(expand_home(arguments.out), record.dump(4) + "\n");
      // The Trainer's own file speaks of the model in this folder and of the data of its settings.
      if (arguments.out.empty() && arguments.model.empty() && arguments.data.empty()) {
        write_results(output_dir, "eval", Json(record));
      }
      return std::string();
    });
  }
  std::fflush(stdout);
  return ExitCode::kDone;
}

}  // namespace dtrain
