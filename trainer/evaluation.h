// Evaluation over all ranks: exact sums and counts, so the result is the same for every world size, to the last digit.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <c10/core/Device.h>

#include "configs/train_config.h"
#include "core/json.h"
#include "datasets/collators/collator.h"
#include "datasets/dataset.h"
#include "dist/host_comm.h"
#include "trainer/metrics/metric.h"
#include "trainer/models/generation.h"
#include "trainer/models/model.h"
#include "trainer/precision.h"

namespace dtrain {

// How texts are written from the examples (predict_with_generate).
struct TextWriter {
  std::shared_ptr<TextGenerator> generator;  // the model that is evaluated
  GenerationOptions options;
  // Ids to text, without special tokens.
  std::function<std::string(const std::vector<std::int32_t>& ids)> decode;
};

struct EvaluationOptions {
  std::int64_t batch_size = 8;  // per rank
  std::int64_t prefetch = 2;
  Precision precision = Precision::kFloat32;
  c10::Device device = c10::Device(c10::kCPU);
  std::shared_ptr<const TextWriter> writer = nullptr;  // null: no texts are written
};

[[nodiscard]] EvaluationOptions evaluation_options(const TrainingConfig& training, Precision precision,
                                                   c10::Device device);
// Micro-batches collated ahead of use: dataloader_num_workers x dataloader_prefetch_factor, as
// torch.utils.data.DataLoader.
[[nodiscard]] std::int64_t prefetched_batches(const TrainingConfig& training);

// metric_for_best_model with its "eval_", and its direction.
[[nodiscard]] std::string best_metric_name(const TrainingConfig& training);
[[nodiscard]] bool greater_is_better(const TrainingConfig& training);

struct EvaluationResult {
  double loss = 0;                                      // mean over all labels, summed in 128-bit integers
  std::vector<std::pair<std::string, double>> metrics;  // as Metric::compute names them
  std::int64_t examples = 0;
  std::int64_t batches = 0;  // rounds: batches of the busiest rank
  double seconds = 0;        // on rank 0
};

using OnBatch = std::function<void(std::int64_t done, std::int64_t all)>;

// Calls visit(batch, output) for this rank's share of the batches (the longest examples first, which keeps padding and
// the difference between ranks small), without gradient and without dropout; no filler takes part. The model returns in
// the mode it came in. `on_batch` is called after each batch of this rank. Returns the number of batches. Local, but
// every rank must call it for all examples to be visited.
std::int64_t visit_batches(Model& model, const std::shared_ptr<const Dataset>& dataset,
                           const std::shared_ptr<const Collator>& collator, const HostComm& host,
                           const EvaluationOptions& options,
                           const std::function<void(const Batch&, const ModelOutput&)>& visit,
                           const OnBatch& on_batch = {});

// Collective. Loss and metrics over all examples of all ranks. A loss that is not finite gives NaN.
[[nodiscard]] EvaluationResult evaluate(Model& model, const std::shared_ptr<const Dataset>& dataset,
                                        const std::shared_ptr<const Collator>& collator,
                                        const std::vector<std::unique_ptr<Metric>>& metrics, HostComm& host,
                                        const EvaluationOptions& options, const OnBatch& on_batch = {});

// The logits of all labels in the order of the data, and how many labels each example has.
struct PredictedLogits {
  at::Tensor logits;                       // [labels, num_labels] float32
  std::vector<std::int64_t> label_counts;  // [examples]
};

// Collective. The result is on rank 0; empty on the others.
[[nodiscard]] PredictedLogits predict_logits(Model& model, const std::shared_ptr<const Dataset>& dataset,
                                             const std::shared_ptr<const Collator>& collator, HostComm& host,
                                             const EvaluationOptions& options, const OnBatch& on_batch = {});

// Collective. The texts that options.writer writes, in the order of the data and without white space around them. The
// result is on rank 0; empty on the others.
[[nodiscard]] std::vector<std::string> predict_texts(Model& model, const std::shared_ptr<const Dataset>& dataset,
                                                     const std::shared_ptr<const Collator>& collator, HostComm& host,
                                                     const EvaluationOptions& options, const OnBatch& on_batch = {});

// The record that the Trainer logs: eval_loss, eval_<metric>..., eval_runtime, eval_samples_per_second,
// eval_steps_per_second, with the Trainer's rounding of the last three.
[[nodiscard]] OrderedJson evaluation_record(const EvaluationResult& result, const std::string& prefix = "eval");

}  // namespace dtrain
