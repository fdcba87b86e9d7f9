#include "datasets/sample_order.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/randperm.h>

#include "core/error.h"

namespace dtrain {
namespace {

std::int64_t ceil_divide(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// For each rank the places of a round that it gets. `lengths` by place; a rank gets as many as `counts` says.
std::vector<std::vector<std::int64_t>> deal(const std::vector<std::int64_t>& lengths,
                                            const std::vector<std::int64_t>& counts) {
  std::vector<std::int64_t> longest_first(lengths.size());
  std::iota(longest_first.begin(), longest_first.end(), std::int64_t{0});
  const auto length = [&](std::int64_t place) { return lengths[static_cast<std::size_t>(place)]; };
  std::stable_sort(longest_first.begin(), longest_first.end(),
                   [&](std::int64_t a, std::int64_t b) { return length(a) > length(b); });
  std::vector<std::vector<std::int64_t>> places(counts.size());
  std::vector<std::int64_t> tokens(counts.size(), 0);
  for (const std::int64_t place : longest_first) {
    std::size_t least = counts.size();
    for (std::size_t rank = 0; rank < counts.size(); ++rank) {
      const bool room = std::ssize(places[rank]) < counts[rank];
      if (room && (least == counts.size() || tokens[rank] < tokens[least])) least = rank;
    }
    places[least].push_back(place);
    tokens[least] += length(place);
  }
  for (std::vector<std::int64_t>& of_rank : places) std::sort(of_rank.begin(), of_rank.end());
  return places;
}

// As one of `world_size * accumulation_steps` ranks.
ShardOptions as_one_of_many(ShardOptions options, std::int64_t accumulation_steps) {
  options.world_size *= static_cast<int>(accumulation_steps);
  options.rank *= static_cast<int>(accumulation_steps);
  return options;
}

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

std::vector<std::int64_t> length_grouped_order(const std::vector<std::int64_t>& lengths, std::int64_t group,
                                               std::uint64_t seed, std::int64_t epoch) {
  constexpr std::int64_t kMostGroups = 50;
  constexpr std::int64_t kFewestStretches = 4;
  DTRAIN_CHECK(group > 0, "groups of {} examples", group);
  const std::int64_t size = std::ssize(lengths);
  const std::int64_t groups = std::clamp<std::int64_t>(size / (group * kFewestStretches), 1, kMostGroups);
  std::vector<std::int64_t> order = sample_order(size, seed, epoch, Sampling::kRandom);
  const auto length = [&](std::int64_t example) { return lengths[static_cast<std::size_t>(example)]; };
  const auto at_place = [&](std::int64_t place) { return order.begin() + static_cast<std::ptrdiff_t>(place); };
  auto longest = order.begin();
  for (std::int64_t first = 0; first < size; first += groups * group) {
    const auto stretch = at_place(first);
    std::stable_sort(stretch, at_place(std::min(size, first + groups * group)),
                     [&](std::int64_t a, std::int64_t b) { return length(a) > length(b); });
    if (length(*stretch) > length(*longest)) longest = stretch;
  }
  if (size > 0) std::iter_swap(order.begin(), longest);
  return order;
}

std::vector<MicroBatchPlan> shard(const std::vector<std::int64_t>& order, const ShardOptions& options,
                                  const std::function<std::int64_t(std::int64_t)>& tokens) {
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
  // One rank has nobody to keep step with: its last batch is short, as it is without even_batches.
  const bool may_be_short = !options.even_batches || ranks == 1;
  for (std::int64_t round = 0; round < rounds; ++round) {
    const std::int64_t first = round * ranks * batch;
    std::vector<std::int64_t> counts(static_cast<std::size_t>(ranks), batch);
    for (std::int64_t rank = 0; rank < ranks && may_be_short; ++rank) {
      counts[static_cast<std::size_t>(rank)] = std::clamp<std::int64_t>(size - first - rank * batch, 0, batch);
    }
    const auto rank = static_cast<std::size_t>(options.rank);
    if (counts[rank] == 0) break;
    MicroBatchPlan micro;
    const auto example = [&](std::int64_t place) { return order[static_cast<std::size_t>((first + place) % size)]; };
    std::vector<std::int64_t> lengths;
    if (tokens && ranks > 1) {
      const std::int64_t all = std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
      for (std::int64_t place = 0; place < all; ++place) lengths.push_back(tokens(example(place)));
    }
    if (std::adjacent_find(lengths.begin(), lengths.end(), std::not_equal_to<>()) != lengths.end()) {
      micro.place = deal(lengths, counts)[rank];
    } else {
      micro.place.resize(static_cast<std::size_t>(counts[rank]));
      std::iota(micro.place.begin(), micro.place.end(), options.rank * batch);
    }
    for (const std::int64_t place : micro.place) {
      micro.index.push_back(example(place));
      micro.filler.push_back(first + place >= size);
    }
    plan.push_back(std::move(micro));
  }
  return plan;
}

std::vector<MicroBatchPlan> shard_steps(const std::vector<std::int64_t>& order, const ShardOptions& options,
                                        std::int64_t accumulation_steps,
                                        const std::function<std::int64_t(std::int64_t)>& tokens) {
  ShardOptions part = as_one_of_many(options, accumulation_steps);
  std::vector<std::vector<MicroBatchPlan>> parts;
  for (std::int64_t i = 0; i < accumulation_steps; ++i, ++part.rank) parts.push_back(shard(order, part, tokens));
  std::vector<MicroBatchPlan> plan;
  for (std::size_t step = 0; step < parts.front().size(); ++step) {
    for (auto& of_part : parts) plan.push_back(std::move(of_part[step]));
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

StepArithmetic whole_step_arithmetic(std::int64_t examples, const ShardOptions& options,
                                     std::int64_t accumulation_steps, double num_train_epochs, std::int64_t max_steps) {
  StepArithmetic result =
      step_arithmetic(examples, as_one_of_many(options, accumulation_steps), 1, num_train_epochs, max_steps);
  result.micro_batches_per_epoch *= accumulation_steps;
  return result;
}

}  // namespace dtrain
