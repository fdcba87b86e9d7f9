#include "trainer/train_step.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <type_traits>

#include <ATen/ops/add.h>
#include <ATen/ops/mul.h>
#include <fmt/ranges.h>

#include "core/clock.h"
#include "core/error.h"

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
  std::int32_t padding = 0;
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

// Collective. Names the examples whose loss is not finite, or all of the step when only the gradient is not.
Error not_finite(HostComm& host, const std::vector<Batch>& micro_batches, const std::vector<at::Tensor>& loss_each,
                 std::int64_t step, bool loss_finite) {
  std::vector<std::int64_t> bad;
  for (std::size_t i = 0; i < micro_batches.size(); ++i) {
    const at::Tensor losses = loss_each[i].to(at::kCPU, at::kFloat).contiguous();
    const float* loss = losses.const_data_ptr<float>();
    for (std::size_t j = 0; j < micro_batches[i].example_index.size(); ++j) {
      if (micro_batches[i].example_weight[j] > 0 && (loss_finite || !std::isfinite(loss[j]))) {
        bad.push_back(micro_batches[i].example_index[j]);
      }
    }
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
  return data_error(
      fmt::format("step {}: the {} is not finite (NaN or infinity); training examples, counted from 0: {}", step,
                  loss_finite ? "gradient" : "loss", where),
      "no rank has changed its weights in this step; look at these examples, lower learning_rate, or set "
      "max_grad_norm");
}

}  // namespace

Batch to_device(const Batch& batch, c10::Device device) {
  Batch moved = batch;
  if (device.is_cpu()) return moved;
  for (auto& [name, tensor] : moved.tensors) tensor = tensor.to(device, /*non_blocking=*/true);
  return moved;
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
    mine.input_elements += batch["input_ids"].numel();
  }
  const StepSize total = agree_on_size(parts_.host, mine);
  const bool scaled = options_.precision == Precision::kFloat16;
  const double scale = scaled ? parts_.scaler.scale() : 1.0;
  lap(result.spans.reduce);

  parts_.reducer.begin_step();
  at::Tensor loss_sum;
  std::vector<at::Tensor> loss_each;
  for (std::size_t i = 0; i < micro_batches.size(); ++i) {
    Batch batch = to_device(micro_batches[i], options_.device);
    batch.random = RandomKey{options_.seed, static_cast<std::uint64_t>(step)};
    parts_.reducer.set_sync(i + 1 == micro_batches.size());
    ModelOutput output;
    {
      const AutocastScope autocast(options_.device.type(), options_.precision);
      output = parts_.model.forward(batch);
    }
    lap(result.spans.forward);
    at::mul(output.loss_sum, scale / total.weight).backward();
    loss_sum = loss_sum.defined() ? at::add(loss_sum, output.loss_sum.detach()) : output.loss_sum.detach();
    loss_each.push_back(output.loss_each);
    lap(result.spans.backward);
  }
  parts_.reducer.finish();
  lap(result.spans.reduce);

  const double norm = gradient_norm(parts_.parameters) / scale;
  lap(result.spans.optimizer);
  ControlWord word;
  word.loss_sum = loss_sum.item<double>();
  word.signal = signal;
  word.loss_finite = std::isfinite(word.loss_sum) ? 1 : 0;
  word.gradient_finite = std::isfinite(norm) ? 1 : 0;

  result.grad_norm = norm;
  result.examples = total.examples;
  result.tokens = total.tokens;
  result.input_elements = total.input_elements;
  bool loss_finite = true;
  bool gradient_finite = true;
  double sum = 0;
  for (const ControlWord& each : exchange(parts_.host, "control word", word)) {
    sum += each.loss_sum;
    result.signal = std::max(result.signal, static_cast<int>(each.signal));
    loss_finite = loss_finite && each.loss_finite != 0;
    gradient_finite = gradient_finite && each.gradient_finite != 0;
  }
  result.loss = sum / total.weight;
  const bool finite = loss_finite && gradient_finite;
  if (!finite && (!scaled || scale < kSmallestScale)) {
    throw not_finite(parts_.host, micro_batches, loss_each, step, loss_finite);
  }
  lap(result.spans.reduce);
  result.updated = scaled ? parts_.scaler.update(finite) : finite;
  if (result.updated) parts_.optimizer.step(learning_rates, clip_coefficient(norm, options_.max_grad_norm) / scale);
  lap(result.spans.optimizer);
  return result;
}

}  // namespace dtrain
