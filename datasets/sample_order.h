// SampleOrder: which examples each rank sees in which micro-batch, as a pure function of (size, seed, epoch, world).
// Equal to the Hugging Face Trainer with accelerate's seedable sampler and batch sharding (batch i of the global list
// goes to rank i mod R; an incomplete tail is filled with the first examples of the epoch, cyclically), with one
// difference: fillers are marked, and carry weight 0, so that no example counts twice. Where the numbers of tokens are
// given, the ranks of a round (one batch each) get the same examples in shares of even work.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

namespace dtrain {

enum class Sampling { kRandom, kSequential };

struct ShardOptions {
  std::int64_t batch_size = 8;  // per rank
  int rank = 0;
  int world_size = 1;
  bool drop_last = false;
  bool even_batches = true;
};

struct MicroBatchPlan {
  std::vector<std::int64_t> index;  // examples of the data set
  std::vector<bool> filler;         // same length
  // Same length: the place of each in the round, 0 to world size * batch size, whichever rank has it.
  std::vector<std::int64_t> place;
};

// randperm(size) of a CPU generator seeded seed + epoch (kRandom), or 0, 1, ... (kSequential).
[[nodiscard]] std::vector<std::int64_t> sample_order(std::int64_t size, std::uint64_t seed, std::int64_t epoch,
                                                     Sampling sampling);

// The order of transformers' LengthGroupedSampler (get_length_grouped_indices of 5.17) with a CPU generator seeded
// seed + epoch: randperm, cut into stretches of up to 50 times `group` examples (of a quarter of the data set where
// that is less), each sorted by length, longest first; then the longest example of all changes places with the first
// one, so that memory runs out at once or never. `group` is the number of examples of a rank's step: batch size times
// accumulation.
[[nodiscard]] std::vector<std::int64_t> length_grouped_order(const std::vector<std::int64_t>& lengths,
                                                             std::int64_t group, std::uint64_t seed,
                                                             std::int64_t epoch);

// All micro-batches of one rank for one epoch; every rank gets the same number of them when even_batches or drop_last.
// At world_size 1 the last micro-batch is simply short: there is nothing to even out. With `tokens`, the number of
// tokens of an example, a round of uneven examples is dealt anew, longest first, to the rank that has the fewest tokens
// and still room: the sums of a step are the same, and nobody waits for the rank with the long texts.
[[nodiscard]] std::vector<MicroBatchPlan> shard(const std::vector<std::int64_t>& order, const ShardOptions& options,
                                                const std::function<std::int64_t(std::int64_t)>& tokens = {});

// The same with a division that does not depend on the number of ranks (training.reproducible): the plan of
// world_size * accumulation_steps ranks with one micro-batch a step each, of which every rank takes accumulation_steps
// neighbours. All steps have all micro-batches, if need be of fillers alone; drop_last drops an incomplete step. The
// places are those of the whole step.
[[nodiscard]] std::vector<MicroBatchPlan> shard_steps(const std::vector<std::int64_t>& order,
                                                      const ShardOptions& options, std::int64_t accumulation_steps,
                                                      const std::function<std::int64_t(std::int64_t)>& tokens = {});

// The step arithmetic of section "exact semantics": all derived counts of a run.
struct StepArithmetic {
  std::int64_t micro_batches_per_epoch = 0;  // M, per rank
  std::int64_t steps_per_epoch = 0;          // U = max(1, ceil(M / G))
  std::int64_t total_steps = 0;              // T
  std::int64_t epochs = 0;                   // epochs begun (the last may be partial)
};
[[nodiscard]] StepArithmetic step_arithmetic(std::int64_t examples, const ShardOptions& shard,
                                             std::int64_t accumulation_steps, double num_train_epochs,
                                             std::int64_t max_steps);
// The counts of shard_steps().
[[nodiscard]] StepArithmetic whole_step_arithmetic(std::int64_t examples, const ShardOptions& shard,
                                                   std::int64_t accumulation_steps, double num_train_epochs,
                                                   std::int64_t max_steps);

}  // namespace dtrain
