#include "trainer/evaluation.h"

#include <algorithm>
#include <cmath>
#include <numeric>

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
  std::vector<std::size_t> length(order.size());
  for (std::size_t i = 0; i < order.size(); ++i) length[i] = dataset.get(static_cast<std::int64_t>(i)).ids.size();
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

  void add(const MetricState& state) {
    counts.resize(state.counts.size());
    sums.resize(state.sums.size());
    for (std::size_t i = 0; i < counts.size(); ++i) counts[i] += state.counts[i];
    for (std::size_t i = 0; i < sums.size(); ++i) sums[i].add(state.sums[i]);
  }
};

}  // namespace

EvaluationResult evaluate(Model& model, const std::shared_ptr<const Dataset>& dataset,
                          const std::shared_ptr<const Collator>& collator,
                          const std::vector<std::unique_ptr<Metric>>& metrics, HostComm& host,
                          const EvaluationOptions& options,
                          const std::function<void(std::int64_t, std::int64_t)>& on_batch) {
  const Stopwatch watch;
  const ShardOptions shard_options{.batch_size = options.batch_size,
                                   .rank = host.rank(),
                                   .world_size = host.size(),
                                   .drop_last = false,
                                   .even_batches = false};
  std::vector<MicroBatchPlan> plan = shard(longest_first(*dataset), shard_options);
  const auto batches = static_cast<std::int64_t>(plan.size());

  ExactSum loss;
  std::int64_t examples = 0;
  std::vector<Accumulated> accumulated(metrics.size());
  for (std::size_t m = 0; m < metrics.size(); ++m) {
    metrics[m]->reset();
    accumulated[m].add(metrics[m]->state());  // fixes the sizes for ranks without a batch
  }
  {
    const EvaluationMode mode(model);
    const c10::AutoGradMode no_gradient(false);
    BatchLoader loader(dataset, collator, std::move(plan), shard_options, 1, 0, options.prefetch);
    for (std::int64_t done = 0; std::optional<Batch> batch = loader.next();) {
      ModelOutput output;
      {
        const AutocastScope autocast(options.device.type(), options.precision);
        output = model.forward(to_device(*batch, options.device));
      }
      const at::Tensor losses = output.loss_each.to(at::kCPU, at::kFloat).contiguous();
      const float* each = losses.const_data_ptr<float>();
      for (std::int64_t i = 0; i < batch->size; ++i) loss.add(static_cast<double>(each[i]));
      examples += batch->size;
      if (!metrics.empty()) {
        const at::Tensor logits = output.logits.to(at::kCPU, at::kFloat).contiguous();
        for (std::size_t m = 0; m < metrics.size(); ++m) {
          metrics[m]->reset();
          metrics[m]->add(logits, (*batch)["labels"]);
          accumulated[m].add(metrics[m]->state());
        }
      }
      if (on_batch) on_batch(++done, batches);
    }
  }

  // One message: [examples, loss words, then per metric its counts and the words of its sums].
  std::vector<std::int64_t> words{examples};
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
  DTRAIN_CHECK(result.examples == dataset->size(), "{} of {} examples were evaluated", result.examples,
               dataset->size());
  result.loss = take() / static_cast<double>(result.examples);
  for (std::size_t m = 0; m < metrics.size(); ++m) {
    MetricState& state = metrics[m]->state();
    for (std::int64_t& count : state.counts) count = words[next++];
    for (double& sum : state.sums) sum = take();
    for (auto& entry : metrics[m]->compute()) result.metrics.push_back(std::move(entry));
  }
  result.batches = busiest[0];
  std::vector<double> seconds{host.rank() == 0 ? watch.seconds() : 0.0};
  host.all_reduce_sum("evaluation seconds", seconds);
  result.seconds = seconds[0];
  return result;
}

OrderedJson evaluation_record(const EvaluationResult& result, const std::string& prefix) {
  OrderedJson record;
  record[prefix + "_loss"] = result.loss;
  for (const auto& [name, value] : result.metrics) record[fmt::format("{}_{}", prefix, name)] = value;
  add_speed(record, prefix, result.seconds, static_cast<double>(result.examples), static_cast<double>(result.batches));
  return record;
}

}  // namespace dtrain
