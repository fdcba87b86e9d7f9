#include "trainer/train_step.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <string>
#include <type_traits>

#include <ATen/Context.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/stack.h>
#include <fmt/ranges.h>

#include "core/clock.h"
#include "core/error.h"
#include "core/fault.h"
#include "core/log.h"
#include "dist/out_of_memory.h"
#include "trainer/replicas.h"

namespace dtrain {
namespace {

constexpr std::size_t kNamedExamples = 16;  // at most, in one message
constexpr double kSmallestScale = 0x1p-14;  // below it not the scale but the numbers are at fault

// What each rank says before backward.
struct StepSize {
  std::int64_t step = 0;
  std::int64_t micro_batches = 0;
  double weight = 0;
  std::int64_t examples = 0;
  std::int64_t tokens = 0;
  std::int64_t input_elements = 0;
};

// What each rank says after the reduction and before the update.
struct ControlWord {
  double loss_sum = 0;
  std::int32_t signal = 0;
  std::int32_t loss_finite = 1;
  std::int32_t gradient_finite = 1;
  std::int32_t out_of_memory = 0;
};

template <class Word>
std::vector<Word> exchange(HostComm& host, std::string_view name, const Word& mine) {
  static_assert(std::is_trivially_copyable_v<Word>);
  const std::vector<std::string> gathered =
      host.all_gather(name, std::string_view(reinterpret_cast<const char*>(&mine), sizeof mine));
  std::vector<Word> words(gathered.size());
  for (std::size_t rank = 0; rank < words.size(); ++rank)
    std::memcpy(&words[rank], gathered[rank].data(), sizeof(Word));
  return words;
}

// Agrees on the size of the step; the result holds the sums.
StepSize agree_on_size(HostComm& host, const StepSize& mine) {
  StepSize total = mine;
  total.weight = 0;
  total.examples = 0;
  total.tokens = 0;
  total.input_elements = 0;
  const std::vector<StepSize> all = exchange(host, "step size", mine);
  for (std::size_t rank = 0; rank < all.size(); ++rank) {
    if (all[rank].step != all[0].step || all[rank].micro_batches != all[0].micro_batches) {
      throw disagree_error(fmt::format("rank {} is at step {} with {} micro-batches, rank 0 at step {} with {}", rank,
                                       all[rank].step, all[rank].micro_batches, all[0].step, all[0].micro_batches),
                           "this is a defect in dtrain: please report it with this line");
    }
    total.weight += all[rank].weight;
    total.examples += all[rank].examples;
    total.tokens += all[rank].tokens;
    total.input_elements += all[rank].input_elements;
  }
  DTRAIN_CHECK(total.examples > 0, "step {} has no examples", mine.step);
  // A step whose few tokens were all left unmasked has nothing to learn; it is no error.
  total.weight = std::max(total.weight, 1.0);
  return total;
}

// As a binary tree: with a power of two of terms on each of a power of two of ranks, the sum of the ranks' sums is the
// sum of all.
double tree_sum(std::span<const double> terms) {
  if (terms.size() <= 1) return terms.empty() ? 0 : terms.front();
  const std::size_t half = terms.size() / 2;
  return tree_sum(terms.first(half)) + tree_sum(terms.subspan(half));
}

// Seeds LibTorch's generator for micro-batch `index` of the step.
void seed_generator(const RandomKey& key, std::uint64_t index) {
  at::manual_seed(mix64(mix64(mix64(key.seed) ^ key.step) ^ index));
}

double damaged(double value, std::optional<Damage> damage) {
  if (!damage) return value;
  return *damage == Damage::kInf ? std::numeric_limits<double>::infinity() : std::numeric_limits<double>::quiet_NaN();
}

// The examples that make `loss_sum`, the loss of `batch`, not finite. All of them where the model gives no loss of
// each, or where those are finite and only their sum is not.
std::vector<std::int64_t> bad_examples(const Batch& batch, const at::Tensor& loss_each) {
  std::vector<std::int64_t> bad;
  std::vector<std::int64_t> all;
  const at::Tensor losses = loss_each.defined() ? loss_each.to(at::kCPU, at::kFloat).contiguous() : loss_each;
  for (std::size_t i = 0; i < batch.example_index.size(); ++i) {
    if (batch.example_weight[i] > 0) all.push_back(batch.example_index[i]);
    // Fillers too: 0 times NaN is NaN.
    if (losses.defined() && !std::isfinite(losses.const_data_ptr<float>()[i])) bad.push_back(batch.example_index[i]);
  }
  return bad.empty() ? all : bad;
}

// Collective. What is not finite, and in which examples: where only the gradient is not, all of the step.
std::string not_finite(HostComm& host, const std::vector<Batch>& micro_batches, const std::vector<double>& loss_sums,
                       const std::vector<at::Tensor>& loss_each, std::int64_t step, bool loss_finite) {
  std::vector<std::int64_t> bad;
  for (std::size_t i = 0; i < micro_batches.size(); ++i) {
    if (!loss_finite && std::isfinite(loss_sums[i])) continue;
    const std::vector<std::int64_t> of_batch =
        bad_examples(micro_batches[i], loss_finite ? at::Tensor() : loss_each[i]);
    bad.insert(bad.end(), of_batch.begin(), of_batch.end());
  }
  const std::string_view mine(reinterpret_cast<const char*>(bad.data()), bad.size() * sizeof(std::int64_t));
  const std::vector<std::string> gathered = host.all_gather("examples that are not finite", mine);
  std::string where;
  for (std::size_t rank = 0; rank < gathered.size(); ++rank) {
    std::vector<std::int64_t> examples(gathered[rank].size() / sizeof(std::int64_t));
    if (examples.empty()) continue;
    std::memcpy(examples.data(), gathered[rank].data(), gathered[rank].size());
    const std::size_t shown = std::min(examples.size(), kNamedExamples);
    where += fmt::format("{}rank {}: {}{}", where.empty() ? "" : "; ", rank,
                         fmt::join(examples.begin(), examples.begin() + static_cast<std::ptrdiff_t>(shown), ", "),
                         examples.size() > shown ? fmt::format(" and {} more", examples.size() - shown) : "");
  }
  return fmt::format("step {}: the {} is not finite (NaN or infinity); training examples, counted from 0: {}", step,
                     loss_finite ? "gradient" : "loss", where);
}

struct WorstExample {
  double loss = -std::numeric_limits<double>::infinity();
  std::int64_t example = -1;  // -1: the model gives no loss of each
};

WorstExample worst_example(const std::vector<Batch>& micro_batches, const std::vector<at::Tensor>& loss_each) {
  WorstExample worst;
  for (std::size_t i = 0; i < micro_batches.size(); ++i) {
    if (!loss_each[i].defined()) continue;
    const at::Tensor losses = loss_each[i].to(at::kCPU, at::kFloat).contiguous();
    for (std::size_t j = 0; j < micro_batches[i].example_index.size(); ++j) {
      const double loss = losses.const_data_ptr<float>()[j];
      if (micro_batches[i].example_weight[j] > 0 && loss > worst.loss) {
        worst = {.loss = loss, .example = micro_batches[i].example_index[j]};
      }
    }
  }
  return worst;
}

// Collective.
void warn_of_spike(HostComm& host, const Spike& spike, double loss, const WorstExample& mine, std::int64_t step) {
  const std::vector<WorstExample> all = exchange(host, "example of the largest loss", mine);
  const auto worst =
      std::max_element(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.loss < b.loss; });
  if (host.rank() != 0) return;
  log::warning("step {}: loss {:.4g} is {:.1f} standard deviations above the {:.4g} of the steps before{}", step, loss,
               spike.deviations, spike.mean,
               worst->example < 0 ? std::string()
                                  : fmt::format("; largest: {:.4g} of training example {} (counted from 0), on rank {}",
                                                worst->loss, worst->example, worst - all.begin()));
}

}  // namespace

Batch to_device(const Batch& batch, c10::Device device) {
  Batch moved = batch;
  if (device.is_cpu()) return moved;
  for (auto& [name, tensor] : moved.tensors) tensor = tensor.to(device, /*non_blocking=*/true);
  return moved;
}

TrainStep::Computed TrainStep::forward_and_backward(const std::vector<Batch>& micro_batches, std::int64_t step,
                                                    double factor, StepSpans& spans) {
  Computed computed;
  Stopwatch watch;
  const auto lap = [&](double& span) {
    span += watch.seconds();
    watch.restart();
  };
  std::vector<at::Tensor> loss_sums;  // by micro-batch
  const auto count = micro_batches.size();
  const auto rank = static_cast<std::size_t>(parts_.host.rank());
  const auto ranks = static_cast<std::size_t>(parts_.host.size());
  try {
    for (std::size_t i = 0; i < count; ++i) {
      const bool last = i + 1 == count;
      Batch batch = to_device(micro_batches[i], options_.device);
      batch.random = RandomKey{options_.seed, static_cast<std::uint64_t>(step)};
      seed_generator(batch.random, options_.reproducible ? rank * count + i : i * ranks + rank);
      parts_.reducer.set_sync(last);
      ModelOutput output;
      {
        const AutocastScope autocast(options_.device.type(), options_.precision);
        output = parts_.model.forward(batch);
      }
      lap(spans.forward);
      DTRAIN_CHECK(output.loss_sum.defined(), "the model gives no loss");
      if (const auto damage = fault_damage("loss", step))
        output.loss_sum = at::mul(output.loss_sum, damaged(1, damage));
      at::mul(output.loss_sum, damaged(factor, fault_damage("gradient", step))).backward();
      if (!last && options_.reproducible) parts_.reducer.end_micro_batch();
      loss_sums.push_back(output.loss_sum.detach());
      computed.loss_each.push_back(output.loss_each);
      lap(spans.backward);
      if (!last && parts_.events.substep_end) parts_.events.substep_end();
    }
    // Only here, so that a GPU is waited for once.
    const at::Tensor sums = at::stack(loss_sums).to(at::kCPU, at::kDouble);
    computed.loss_sums.assign(sums.const_data_ptr<double>(), sums.const_data_ptr<double>() + count);
  } catch (const std::exception& exception) {
    if (!options_.agree_on_memory || !is_out_of_memory(exception)) throw;
    computed.out_of_memory = true;
  }
  return computed;
}

StepResult TrainStep::run(const std::vector<Batch>& micro_batches, std::int64_t step,
                          std::span<const double> learning_rates, int signal) {
  StepResult result;
  Stopwatch watch;
  const auto lap = [&](double& span) {
    span += watch.seconds();
    watch.restart();
  };
  StepSize mine;
  mine.step = step;
  mine.micro_batches = static_cast<std::int64_t>(micro_batches.size());
  for (const Batch& batch : micro_batches) {
    mine.weight += batch.weight;
    mine.examples += std::count(batch.example_weight.begin(), batch.example_weight.end(), 1.0F);
    mine.tokens += batch.num_tokens;
    if (batch.has("input_ids")) mine.input_elements += batch["input_ids"].numel();
  }
  const StepSize total = agree_on_size(parts_.host, mine);
  const bool scaled = options_.precision == Precision::kFloat16;
  const double scale = scaled ? parts_.scaler.scale() : 1.0;
  lap(result.spans.reduce);

  parts_.reducer.begin_step();
  const Computed computed = forward_and_backward(micro_batches, step, scale / total.weight, result.spans);
  watch.restart();
  // Without memory too: the other ranks wait in these sums.
  parts_.reducer.finish();
  lap(result.spans.reduce);

  // Where a defect of the reduction, or of a rank's memory, would strike.
  if (fault_damage("bucket", step)) flip_bit(parts_.reducer.buckets().front());
  const double norm = computed.out_of_memory ? 0 : gradient_norm(parts_.parameters) / scale;
  lap(result.spans.optimizer);
  ControlWord word;
  word.loss_sum = tree_sum(computed.loss_sums);
  word.signal = signal;
  word.out_of_memory = computed.out_of_memory ? 1 : 0;
  word.loss_finite = std::isfinite(word.loss_sum) ? 1 : 0;
  word.gradient_finite = std::isfinite(norm) ? 1 : 0;

  result.grad_norm = norm;
  result.examples = total.examples;
  result.tokens = total.tokens;
  result.input_elements = total.input_elements;
  bool loss_finite = true;
  bool gradient_finite = true;
  std::vector<double> sums;                  // by rank
  std::vector<std::size_t> short_of_memory;  // ranks
  const std::vector<ControlWord> words = exchange(parts_.host, "control word", word);
  for (std::size_t rank = 0; rank < words.size(); ++rank) {
    const ControlWord& each = words[rank];
    if (each.out_of_memory != 0) short_of_memory.push_back(rank);
    sums.push_back(each.loss_sum);
    result.signal = std::max(result.signal, static_cast<int>(each.signal));
    loss_finite = loss_finite && each.loss_finite != 0;
    gradient_finite = gradient_finite && each.gradient_finite != 0;
  }
  if (!short_of_memory.empty()) {
    throw OutOfMemory(fmt::format("step {}: out of memory on rank{} {}", step, short_of_memory.size() == 1 ? "" : "s",
                                  fmt::join(short_of_memory, ", ")));
  }
  result.loss = tree_sum(sums) / total.weight;
  if (options_.loss_spike > 0) {
    if (const std::optional<Spike> spike = spikes_.observe(result.loss)) {
      warn_of_spike(parts_.host, *spike, result.loss, worst_example(micro_batches, computed.loss_each), step);
    }
  }
  const bool finite = loss_finite && gradient_finite;
  if (!finite && (!scaled || scale < kSmallestScale)) {
    const std::string reason =
        not_finite(parts_.host, micro_batches, computed.loss_sums, computed.loss_each, step, loss_finite);
    if (!options_.skip_not_finite) {
      throw data_error(reason,
                       "no rank has changed its weights in this step; look at these examples, lower learning_rate, set "
                       "max_grad_norm, or reliability.not_finite = \"skip\"");
    }
    if (parts_.host.rank() == 0) log::warning("{}; the step is skipped, no rank changes its weights", reason);
  }
  lap(result.spans.reduce);
  if (parts_.events.pre_optimizer_step) parts_.events.pre_optimizer_step();
  result.updated = scaled ? parts_.scaler.update(finite) : finite;
  if (result.updated) parts_.optimizer.step(learning_rates, clip_coefficient(norm, options_.max_grad_norm) / scale);
  if (parts_.events.optimizer_step) parts_.events.optimizer_step();
  lap(result.spans.optimizer);
  return result;
}

}  // namespace dtrain
