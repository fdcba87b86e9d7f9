#include "datasets/sample_order.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/randperm.h>

#include "core/error.h"

namespace dtrain {
namespace {

std::int64_t ceil_divide(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

}  // namespace

std::vector<std::int64_t> sample_order(std::int64_t size, std::uint64_t seed, std::int64_t epoch, Sampling sampling) {
  std::vector<std::int64_t> order(static_cast<std::size_t>(size));
  if (sampling == Sampling::kSequential) {
    std::iota(order.begin(), order.end(), std::int64_t{0});
    return order;
  }
  const at::Generator generator = at::detail::createCPUGenerator(seed + static_cast<std::uint64_t>(epoch));
  const at::Tensor permutation = at::randperm(size, generator, at::kLong);
  std::copy_n(permutation.const_data_ptr<std::int64_t>(), size, order.begin());
  return order;
}

std::vector<MicroBatchPlan> shard(const std::vector<std::int64_t>& order, const ShardOptions& options) {
  DTRAIN_CHECK(
      options.batch_size > 0 && options.world_size > 0 && options.rank >= 0 && options.rank < options.world_size,
      "batch size {}, rank {} of {}", options.batch_size, options.rank, options.world_size);
  const auto size = static_cast<std::int64_t>(order.size());
  const std::int64_t batch = options.batch_size;
  const std::int64_t ranks = options.world_size;
  // Batches of the whole job that hold at least one example; then rounds of one batch a rank.
  const std::int64_t batches = options.drop_last ? size / batch : ceil_divide(size, batch);
  const std::int64_t rounds = options.drop_last ? batches / ranks : ceil_divide(batches, ranks);
  std::vector<MicroBatchPlan> plan;
  plan.reserve(static_cast<std::size_t>(rounds));
  for (std::int64_t round = 0; round < rounds; ++round) {
    const std::int64_t begin = (round * ranks + options.rank) * batch;
    std::int64_t count = batch;
    // One rank has nobody to keep step with: its last batch is short, as it is without even_batches.
    if (!options.even_batches || ranks == 1) count = std::min(batch, size - begin);
    if (count <= 0) break;
    MicroBatchPlan micro;
    for (std::int64_t position = begin; position < begin + count; ++position) {
      micro.index.push_back(order[static_cast<std::size_t>(position % size)]);
      micro.filler.push_back(position >= size);
    }
    plan.push_back(std::move(micro));
  }
  return plan;
}

StepArithmetic step_arithmetic(std::int64_t examples, const ShardOptions& options, std::int64_t accumulation_steps,
                               double num_train_epochs, std::int64_t max_steps) {
  StepArithmetic result;
  const std::int64_t ranks = options.world_size;
  result.micro_batches_per_epoch = options.drop_last ? examples / options.batch_size / ranks
                                                     : ceil_divide(ceil_divide(examples, options.batch_size), ranks);
  result.steps_per_epoch = std::max<std::int64_t>(1, ceil_divide(result.micro_batches_per_epoch, accumulation_steps));
  if (max_steps > 0) {
    result.total_steps = max_steps;
    result.epochs = ceil_divide(max_steps, result.steps_per_epoch);
  } else {
    result.total_steps =
        static_cast<std::int64_t>(std::ceil(num_train_epochs * static_cast<double>(result.steps_per_epoch)));
    result.epochs = static_cast<std::int64_t>(std::ceil(num_train_epochs));
  }
  return result;
}

}  // namespace dtrain
