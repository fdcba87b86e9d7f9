#include "trainer/evaluation.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include <ATen/ops/empty.h>
#include <c10/core/GradMode.h>

#include "core/clock.h"
#include "core/error.h"
#include "datasets/batch_loader.h"
#include "datasets/sample_order.h"
#include "trainer/exact_sum.h"
#include "trainer/speed.h"
#include "trainer/train_step.h"

namespace dtrain {
namespace {

// Puts the model into evaluation mode and back, also when an exception passes.
class EvaluationMode {
 public:
  explicit EvaluationMode(Model& model) : model_(model), was_training_(model.is_training()) { model_.eval(); }
  ~EvaluationMode() { model_.train(was_training_); }
  EvaluationMode(const EvaluationMode&) = delete;
  EvaluationMode& operator=(const EvaluationMode&) = delete;

 private:
  Model& model_;
  bool was_training_;
};

std::vector<std::int64_t> longest_first(const Dataset& dataset) {
  std::vector<std::int64_t> order(static_cast<std::size_t>(dataset.size()));
  std::iota(order.begin(), order.end(), std::int64_t{0});
  std::vector<std::int64_t> length(order.size());
  for (std::size_t i = 0; i < order.size(); ++i) length[i] = dataset.length(static_cast<std::int64_t>(i));
  std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
    return length[static_cast<std::size_t>(a)] > length[static_cast<std::size_t>(b)];
  });
  return order;
}

// The metric's counts and sums over the batches of this rank, ready to be added up over ranks. A metric's floating sums
// are taken per batch and added exactly, so that their total does not depend on which rank had which batch.
struct Accumulated {
  std::vector<std::int64_t> counts;
  std::vector<ExactSum> sums;
  std::vector<float> values;

  void add(const MetricState& state) {
    counts.resize(state.counts.size());
    sums.resize(state.sums.size());
    for (std::size_t i = 0; i < counts.size(); ++i) counts[i] += state.counts[i];
    for (std::size_t i = 0; i < sums.size(); ++i) sums[i].add(state.sums[i]);
    values.insert(values.end(), state.values.begin(), state.values.end());
  }
};

// The ranks' vectors, one after the other.
template <class Value>
std::vector<Value> from_all_ranks(HostComm& host, const std::vector<Value>& mine) {
  const std::string_view bytes(reinterpret_cast<const char*>(mine.data()), mine.size() * sizeof(Value));
  std::vector<Value> all;
  for (const std::string& part : host.all_gather("values of examples", bytes)) {
    if (part.empty()) continue;
    const std::size_t before = all.size();
    all.resize(before + part.size() / sizeof(Value));
    std::memcpy(all.data() + before, part.data(), part.size());
  }
  return all;
}

// visit_batches() without the forward pass.
std::int64_t each_batch(Model& model, const std::shared_ptr<const Dataset>& dataset,
                        const std::shared_ptr<const Collator>& collator, const HostComm& host,
                        const EvaluationOptions& options, const std::function<void(const Batch&)>& visit,
                        const OnBatch& on_batch) {
  const ShardOptions shard_options{.batch_size = options.batch_size,
                                   .rank = host.rank(),
                                   .world_size = host.size(),
                                   .drop_last = false,
                                   .even_batches = false};
  std::vector<MicroBatchPlan> plan = shard(longest_first(*dataset), shard_options);
  const auto batches = static_cast<std::int64_t>(plan.size());
  const EvaluationMode mode(model);
  const c10::AutoGradMode no_gradient(false);
  BatchLoader loader(dataset, collator, std::move(plan), shard_options, 1, 0, options.prefetch, /*epoch=*/-1);
  for (std::int64_t done = 0; std::optional<Batch> batch = loader.next();) {
    visit(*batch);
    if (on_batch) on_batch(++done, batches);
  }
  return batches;
}

std::string stripped(const std::string& text) {
  constexpr const char* kWhiteSpace = " \t\n\v\f\r";
  const std::size_t first = text.find_first_not_of(kWhiteSpace);
  if (first == std::string::npos) return {};
  return text.substr(first, text.find_last_not_of(kWhiteSpace) - first + 1);
}

std::vector<std::string> written_texts(const TextWriter& writer, const Batch& batch, const EvaluationOptions& options) {
  const AutocastScope autocast(options.device.type(), options.precision);
  std::vector<std::string> texts;
  for (const auto& ids : generate(*writer.generator, to_device(batch, options.device), writer.options)) {
    texts.push_back(stripped(writer.decode(ids)));
  }
  return texts;
}

// The texts that the labels of a batch are the ids of.
std::vector<std::string> wanted_texts(const TextWriter& writer, const Batch& batch) {
  const auto* label = batch["labels"].const_data_ptr<std::int64_t>();
  std::vector<std::string> texts;
  for (const std::int64_t count : batch.target_count) {
    texts.push_back(stripped(writer.decode(std::vector<std::int32_t>(label, label + count))));
    label += count;
  }
  return texts;
}

}  // namespace

EvaluationOptions evaluation_options(const TrainingConfig& training, Precision precision, c10::Device device) {
  return {.batch_size = training.per_device_eval_batch_size,
          .prefetch = prefetched_batches(training),
          .precision = precision,
          .device = device};
}

std::string best_metric_name(const TrainingConfig& training) {
  const std::string& name = training.metric_for_best_model.value();
  return name.starts_with("eval_") ? name : "eval_" + name;
}

bool greater_is_better(const TrainingConfig& training) {
  return training.greater_is_better.value_or(!best_metric_name(training).ends_with("loss"));
}

std::int64_t prefetched_batches(const TrainingConfig& training) {
  constexpr std::int64_t kDefaultFactor = 2;
  return std::max<std::int64_t>(1, training.dataloader_num_workers) *
         training.dataloader_prefetch_factor.value_or(kDefaultFactor);
}

std::int64_t visit_batches(Model& model, const std::shared_ptr<const Dataset>& dataset,
                           const std::shared_ptr<const Collator>& collator, const HostComm& host,
                           const EvaluationOptions& options,
                           const std::function<void(const Batch&, const ModelOutput&)>& visit,
                           const OnBatch& on_batch) {
  return each_batch(
      model, dataset, collator, host, options,
      [&](const Batch& batch) {
        ModelOutput output;
        {
          const AutocastScope autocast(options.device.type(), options.precision);
          output = model.forward(to_device(batch, options.device));
        }
        visit(batch, output);
      },
      on_batch);
}

EvaluationResult evaluate(Model& model, const std::shared_ptr<const Dataset>& dataset,
                          const std::shared_ptr<const Collator>& collator,
                          const std::vector<std::unique_ptr<Metric>>& metrics, HostComm& host,
                          const EvaluationOptions& options, const OnBatch& on_batch) {
  const Stopwatch watch;
  ExactSum loss;
  std::int64_t examples = 0;
  std::int64_t labels = 0;
  std::vector<Accumulated> accumulated(metrics.size());
  const bool writes = options.writer != nullptr && std::any_of(metrics.begin(), metrics.end(), [](const auto& metric) {
                        return metric->reads_texts();
                      });
  for (std::size_t m = 0; m < metrics.size(); ++m) {
    metrics[m]->reset();
    accumulated[m].add(metrics[m]->state());  // fixes the sizes for ranks without a batch
  }
  const auto add = [&](const Batch& batch, const ModelOutput& output) {
    at::Tensor losses;
    if (output.loss_each.defined()) {
      losses = output.loss_each.to(at::kCPU, at::kFloat).contiguous();
      const float* each = losses.const_data_ptr<float>();
      for (std::int64_t i = 0; i < batch.size; ++i) loss.add(static_cast<double>(each[i]));
    } else {
      DTRAIN_CHECK(output.loss_sum.defined(), "the model gives no loss");
      loss.add(output.loss_sum.item<double>());
    }
    examples += batch.size;
    for (std::size_t i = 0; i < static_cast<std::size_t>(batch.size); ++i) labels += batch.labels_of(i);
    if (metrics.empty()) return;
    Predictions predictions;
    if (output.logits.defined()) predictions.logits = output.logits.to(at::kCPU, at::kFloat).contiguous();
    if (output.predicted.defined()) predictions.predicted = output.predicted.to(at::kCPU);
    if (batch.has("labels")) predictions.labels = batch["labels"];
    predictions.losses = losses;
    predictions.label_counts = batch.target_count;
    if (writes) {
      predictions.texts = written_texts(*options.writer, batch, options);
      predictions.references = wanted_texts(*options.writer, batch);
    }
    for (std::size_t m = 0; m < metrics.size(); ++m) {
      metrics[m]->reset();
      metrics[m]->add(predictions);
      accumulated[m].add(metrics[m]->state());
    }
  };
  const std::int64_t batches = visit_batches(model, dataset, collator, host, options, add, on_batch);

  // One message: [examples, labels, loss words, then per metric its counts and the words of its sums].
  std::vector<std::int64_t> words{examples, labels};
  const auto append = [&](const ExactSum& sum) {
    const ExactSum::Words each = sum.words();
    words.insert(words.end(), each.begin(), each.end());
  };
  append(loss);
  for (const Accumulated& each : accumulated) {
    words.insert(words.end(), each.counts.begin(), each.counts.end());
    for (const ExactSum& sum : each.sums) append(sum);
  }
  host.all_reduce_sum("evaluation", words);
  std::vector<std::int64_t> busiest{batches};
  host.all_reduce_max("evaluation batches", busiest);

  std::size_t next = 0;
  const auto take = [&] {
    ExactSum::Words each{};
    std::copy_n(words.begin() + static_cast<std::ptrdiff_t>(next), each.size(), each.begin());
    next += each.size();
    return ExactSum::from_words(each).value();
  };
  EvaluationResult result;
  result.examples = words[next++];
  const std::int64_t all_labels = words[next++];
  DTRAIN_CHECK(result.examples == dataset->size(), "{} of {} examples were evaluated", result.examples,
               dataset->size());
  result.loss = take() / static_cast<double>(all_labels);
  for (std::size_t m = 0; m < metrics.size(); ++m) {
    MetricState& state = metrics[m]->state();
    for (std::int64_t& count : state.counts) count = words[next++];
    for (double& sum : state.sums) sum = take();
    state.values = metrics[m]->keeps_values() ? from_all_ranks(host, accumulated[m].values) : std::vector<float>();
    for (auto& entry : metrics[m]->compute()) result.metrics.push_back(std::move(entry));
  }
  result.batches = busiest[0];
  std::vector<double> seconds{host.rank() == 0 ? watch.seconds() : 0.0};
  host.all_reduce_sum("evaluation seconds", seconds);
  result.seconds = seconds[0];
  return result;
}

PredictedLogits predict_logits(Model& model, const std::shared_ptr<const Dataset>& dataset,
                               const std::shared_ptr<const Collator>& collator, HostComm& host,
                               const EvaluationOptions& options, const OnBatch& on_batch) {
  // Per example its index and its number of labels, and in the other vector its rows of logits.
  std::vector<std::int64_t> found;
  std::vector<float> rows;
  std::vector<std::int64_t> width = {0};
  (void)visit_batches(
      model, dataset, collator, host, options,
      [&](const Batch& batch, const ModelOutput& output) {
        const at::Tensor logits = output.logits.to(at::kCPU, at::kFloat).contiguous();
        for (std::size_t i = 0; i < batch.example_index.size(); ++i) {
          found.push_back(batch.example_index[i]);
          found.push_back(batch.labels_of(i));
        }
        rows.insert(rows.end(), logits.const_data_ptr<float>(), logits.const_data_ptr<float>() + logits.numel());
        width[0] = logits.size(1);
      },
      on_batch);
  host.all_reduce_max("classes", width);
  found = from_all_ranks(host, found);
  rows = from_all_ranks(host, rows);
  DTRAIN_CHECK(std::ssize(found) == 2 * dataset->size(), "{} of {} examples were predicted", found.size() / 2,
               dataset->size());
  if (host.rank() != 0) return {};
  PredictedLogits result;
  result.label_counts.resize(static_cast<std::size_t>(dataset->size()));
  for (std::size_t i = 0; i < found.size(); i += 2)
    result.label_counts[static_cast<std::size_t>(found[i])] = found[i + 1];
  std::vector<std::int64_t> first(result.label_counts.size() + 1);
  std::partial_sum(result.label_counts.begin(), result.label_counts.end(), first.begin() + 1);
  result.logits = at::empty({first.back(), width[0]}, at::kFloat);
  const float* row = rows.data();
  for (std::size_t i = 0; i < found.size(); i += 2) {
    const std::int64_t count = found[i + 1] * width[0];
    std::copy_n(row, count,
                result.logits.mutable_data_ptr<float>() + first[static_cast<std::size_t>(found[i])] * width[0]);
    row += count;
  }
  return result;
}

std::vector<std::string> predict_texts(Model& model, const std::shared_ptr<const Dataset>& dataset,
                                       const std::shared_ptr<const Collator>& collator, HostComm& host,
                                       const EvaluationOptions& options, const OnBatch& on_batch) {
  std::vector<std::int64_t> found;  // index and bytes of each text
  std::vector<char> bytes;
  (void)each_batch(
      model, dataset, collator, host, options,
      [&](const Batch& batch) {
        const std::vector<std::string> texts = written_texts(*options.writer, batch, options);
        for (std::size_t i = 0; i < texts.size(); ++i) {
          found.push_back(batch.example_index[i]);
          found.push_back(std::ssize(texts[i]));
          bytes.insert(bytes.end(), texts[i].begin(), texts[i].end());
        }
      },
      on_batch);
  found = from_all_ranks(host, found);
  bytes = from_all_ranks(host, bytes);
  DTRAIN_CHECK(std::ssize(found) == 2 * dataset->size(), "{} of {} texts were written", found.size() / 2,
               dataset->size());
  if (host.rank() != 0) return {};
  std::vector<std::string> texts(static_cast<std::size_t>(dataset->size()));
  const char* text = bytes.data();
  for (std::size_t i = 0; i < found.size(); i += 2) {
    texts[static_cast<std::size_t>(found[i])].assign(text, static_cast<std::size_t>(found[i + 1]));
    text += found[i + 1];
  }
  return texts;
}

OrderedJson evaluation_record(const EvaluationResult& result, const std::string& prefix) {
  OrderedJson record;
  record[prefix + "_loss"] = result.loss;
  for (const auto& [name, value] : result.metrics) record[fmt::format("{}_{}", prefix, name)] = value;
  add_speed(record, prefix, result.seconds, static_cast<double>(result.examples), static_cast<double>(result.batches));
  return record;
}

}  // namespace dtrain
