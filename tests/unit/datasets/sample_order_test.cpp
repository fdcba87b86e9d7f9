// The order of the examples, their division among ranks, and the counts of a run, against the Hugging Face libraries'
// own.
#include "datasets/sample_order.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "core/json.h"
#include "datasets/numpy_permutation.h"
#include "tests/support/files.h"

namespace dtrain {
namespace {

using Indices = std::vector<std::int64_t>;

const Json& golden() {
  static const Json recorded = read_json_file(test::test_data("golden/data_order.json"));
  return recorded;
}

TEST(SampleOrder, EqualsTheTrainersTwoEpochs) {
  for (const Json& run : golden().at("trainer")) {
    const auto size = run.at("size").get<std::int64_t>();
    std::vector<Indices> batches;
    for (std::int64_t epoch = 0; epoch < 2; ++epoch) {
      const Indices order = sample_order(size, run.at("seed").get<std::uint64_t>(), epoch, Sampling::kRandom);
      for (const MicroBatchPlan& micro : shard(order, {.batch_size = run.at("batch_size").get<std::int64_t>()})) {
        batches.push_back(micro.index);
      }
    }
    EXPECT_EQ(batches, run.at("batches").get<std::vector<Indices>>()) << "seed " << run.at("seed");
  }
}

TEST(SampleOrder, EqualsTheSeedableSampler) {
  for (const Json& run : golden().at("orders")) {
    EXPECT_EQ(sample_order(run.at("size").get<std::int64_t>(), run.at("seed").get<std::uint64_t>(),
                           run.at("epoch").get<std::int64_t>(), Sampling::kRandom),
              run.at("order").get<Indices>());
  }
}

TEST(SampleOrder, EqualsTheLengthGroupedSampler) {
  for (const Json& run : golden().at("length_groups")) {
    const auto lengths = run.at("lengths").get<Indices>();
    const auto seed = run.at("seed").get<std::uint64_t>();
    const auto group = run.at("group").get<std::int64_t>();
    EXPECT_EQ(length_grouped_order(lengths, group, seed, 0), run.at("order").get<Indices>()) << lengths.size();
    // The epoch adds to the seed, as it does for the random order.
    if (seed == 0) continue;
    EXPECT_EQ(length_grouped_order(lengths, group, seed - 1, 1), run.at("order").get<Indices>());
  }
  EXPECT_TRUE(length_grouped_order({}, 4, 42, 0).empty());
}

TEST(SampleOrder, SequentialIsFileOrder) {
  EXPECT_EQ(sample_order(4, 42, 3, Sampling::kSequential), (Indices{0, 1, 2, 3}));
  EXPECT_TRUE(sample_order(0, 42, 0, Sampling::kRandom).empty());
}

TEST(Shard, EqualsTheBatchSamplerShard) {
  for (const Json& run : golden().at("shards")) {
    const auto size = run.at("size").get<std::int64_t>();
    const auto ranks = run.at("ranks").get<std::vector<std::vector<Indices>>>();
    const Indices order = sample_order(size, 0, 0, Sampling::kSequential);
    for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
      std::vector<Indices> batches;
      for (const MicroBatchPlan& micro : shard(order, {.batch_size = run.at("batch_size").get<std::int64_t>(),
                                                      .rank = static_cast<int>(rank),
                                                      .world_size = static_cast<int>(ranks.size()),
                                                      .drop_last = run.at("drop_last").get<bool>(),
                                                      .even_batches = run.at("even").get<bool>()})) {
        batches.push_back(micro.index);
      }
      EXPECT_EQ(batches, ranks[rank]) << run.dump() << " rank " << rank;
    }
  }
}

TEST(Shard, ThreeExamplesForTwoRanksOfFour) {
  const Indices order = {0, 1, 2};
  const auto first = shard(order, {.batch_size = 4, .rank = 0, .world_size = 2});
  const auto second = shard(order, {.batch_size = 4, .rank = 1, .world_size = 2});
  ASSERT_EQ(first.size(), 1U);
  ASSERT_EQ(second.size(), 1U);
  EXPECT_EQ(first[0].index, (Indices{0, 1, 2, 0}));
  EXPECT_EQ(first[0].filler, (std::vector<bool>{false, false, false, true}));
  EXPECT_EQ(second[0].index, (Indices{1, 2, 0, 1}));
  EXPECT_EQ(second[0].filler, (std::vector<bool>{true, true, true, true}));
}

TEST(Shard, TokensDecideWhoGetsWhat) {
  const std::vector<std::int64_t> length = {10, 20, 50, 30, 40, 5};
  const auto tokens = [&](std::int64_t i) { return length[static_cast<std::size_t>(i)]; };
  const Indices order = {5, 4, 3, 2, 1, 0};
  const auto first = shard(order, {.batch_size = 3, .rank = 0, .world_size = 2}, tokens);
  const auto second = shard(order, {.batch_size = 3, .rank = 1, .world_size = 2}, tokens);
  // Rank 0 gets 50; rank 1 gets 40 and, with less than 50 still, 30; rank 0 gets 20 and, at 70 each, 10; rank 1 gets 5.
  EXPECT_EQ(first[0].index, (Indices{2, 1, 0}));
  EXPECT_EQ(first[0].place, (Indices{3, 4, 5}));
  EXPECT_EQ(second[0].index, (Indices{5, 4, 3}));
  EXPECT_EQ(second[0].place, (Indices{0, 1, 2}));
  // Nothing to even out: as without.
  const auto plain = shard(order, {.batch_size = 3, .rank = 1, .world_size = 2}, [](std::int64_t) { return 9; });
  EXPECT_EQ(plain[0].place, (Indices{3, 4, 5}));
}

// Texts as uneven as reviews are: no rank has more than 2 % above the mean of its round, untouched they have 20 %.
TEST(Shard, EvenWork) {
  const Indices order = sample_order(4096, 7, 0, Sampling::kRandom);
  const auto tokens = [](std::int64_t i) { return 20 + i * 7919 % 237; };
  const auto worst = [&](bool deals) {
    std::vector<std::vector<MicroBatchPlan>> plans;
    for (int rank = 0; rank < 4; ++rank) {
      const ShardOptions options{.batch_size = 16, .rank = rank, .world_size = 4};
      plans.push_back(deals ? shard(order, options, tokens) : shard(order, options));
    }
    double result = 0;
    for (std::size_t round = 0; round < plans[0].size(); ++round) {
      double sum = 0;
      double most = 0;
      for (const auto& plan : plans) {
        double of_rank = 0;
        for (const std::int64_t i : plan[round].index) of_rank += static_cast<double>(tokens(i));
        sum += of_rank;
        most = std::max(most, of_rank);
      }
      result = std::max(result, most / (sum / 4));
    }
    return result;
  };
  EXPECT_LT(worst(true), 1.02);
  EXPECT_GT(worst(false), 1.2);
}

// Every data set of 0 to 50 examples, 1 to 4 ranks, micro-batches of 1 to 5, accumulation of 1 to 3.
TEST(Shard, EveryExampleCountsExactlyOnce) {
  std::int64_t combinations = 0;
  for (std::int64_t size = 0; size <= 50; ++size) {
    const Indices order = sample_order(size, 42, 1, Sampling::kRandom);
    for (int world = 1; world <= 4; ++world) {
      for (std::int64_t micro = 1; micro <= 5; ++micro) {
        for (std::int64_t accumulation = 1; accumulation <= 3; ++accumulation) {
          ++combinations;
          SCOPED_TRACE(testing::Message()
                       << size << " examples, " << world << " ranks, " << micro << " x " << accumulation);
          const StepArithmetic counts =
              step_arithmetic(size, {.batch_size = micro, .world_size = world}, accumulation, 1, -1);
          std::map<std::int64_t, int> seen;
          // Step -> the examples that count in it, over all ranks.
          std::map<std::int64_t, Indices> of_step;
          for (int rank = 0; rank < world; ++rank) {
            const ShardOptions options{.batch_size = micro, .rank = rank, .world_size = world};
            const auto plan = accumulation == 2 ? shard(order, options, [](std::int64_t i) { return i * i % 7 + 1; })
                                                : shard(order, options);
            ASSERT_EQ(static_cast<std::int64_t>(plan.size()), counts.micro_batches_per_epoch) << "rank " << rank;
            for (std::size_t i = 0; i < plan.size(); ++i) {
              ASSERT_EQ(plan[i].index.size(), plan[i].filler.size());
              ASSERT_EQ(plan[i].index.size(), plan[i].place.size());
              if (world > 1) {
                ASSERT_EQ(static_cast<std::int64_t>(plan[i].index.size()), micro);
              }
              for (std::size_t j = 0; j < plan[i].index.size(); ++j) {
                ASSERT_GE(plan[i].index[j], 0);
                ASSERT_LT(plan[i].index[j], size);
                if (plan[i].filler[j]) continue;
                ++seen[plan[i].index[j]];
                of_step[static_cast<std::int64_t>(i) / accumulation].push_back(plan[i].index[j]);
              }
            }
          }
          ASSERT_EQ(static_cast<std::int64_t>(seen.size()), size);
          for (const auto& [index, times] : seen) ASSERT_EQ(times, 1) << "example " << index;
          // Each step holds the same examples as with one rank and no accumulation at the same global batch.
          const std::int64_t global = micro * world * accumulation;
          ASSERT_EQ(static_cast<std::int64_t>(of_step.size()), (size + global - 1) / global);
          for (auto& [step, examples] : of_step) {
            Indices expected(order.begin() + step * global, order.begin() + std::min(size, (step + 1) * global));
            std::sort(expected.begin(), expected.end());
            std::sort(examples.begin(), examples.end());
            ASSERT_EQ(examples, expected) << "step " << step;
          }
        }
      }
    }
  }
  EXPECT_EQ(combinations, 3060);
}

// The same with drop_last, and as training.reproducible divides a step: every example at most once, the number dropped
// as the policy says, all ranks as many micro-batches.
TEST(Shard, DropLastAndWholeStepsOfEverySize) {
  for (std::int64_t size = 0; size <= 50; ++size) {
    const Indices order = sample_order(size, 42, 1, Sampling::kRandom);
    for (int world = 1; world <= 4; ++world) {
      for (std::int64_t micro = 1; micro <= 5; ++micro) {
        for (std::int64_t accumulation = 1; accumulation <= 3; ++accumulation) {
          for (const bool drop : {false, true}) {
            for (const bool whole_steps : {false, true}) {
              if (!drop && !whole_steps) continue;  // the test above
              SCOPED_TRACE(testing::Message()
                           << size << " examples, " << world << " ranks, " << micro << " x " << accumulation
                           << (drop ? ", drop" : "") << (whole_steps ? ", whole steps" : ""));
              ShardOptions options{.batch_size = micro, .rank = 0, .world_size = world, .drop_last = drop};
              const StepArithmetic counts =
                  (whole_steps ? whole_step_arithmetic : step_arithmetic)(size, options, accumulation, 1, -1);
              std::set<std::int64_t> seen;
              std::int64_t used = 0;
              for (; options.rank < world; ++options.rank) {
                const auto plan = whole_steps ? shard_steps(order, options, accumulation) : shard(order, options);
                ASSERT_EQ(static_cast<std::int64_t>(plan.size()), counts.micro_batches_per_epoch);
                for (const MicroBatchPlan& each : plan) {
                  for (std::size_t i = 0; i < each.index.size(); ++i) {
                    if (each.filler[i]) continue;
                    seen.insert(each.index[i]);
                    ++used;
                  }
                }
              }
              const std::int64_t unit = micro * world * (whole_steps ? accumulation : 1);
              ASSERT_EQ(used, drop ? size / unit * unit : size);
              ASSERT_EQ(static_cast<std::int64_t>(seen.size()), used);
            }
          }
        }
      }
    }
  }
}

// Micro-batches of a step are the same, in the same order over the ranks, however many ranks there are.
TEST(Shard, WholeStepsDoNotDependOnTheRanks) {
  const auto tokens = [](std::int64_t i) { return i * i % 11 + 1; };
  for (const bool drop : {false, true}) {
    for (std::int64_t size = 1; size <= 70; ++size) {
      const Indices order = sample_order(size, 3, 0, Sampling::kRandom);
      std::vector<std::vector<Indices>> of_one;  // by step: the examples and places of its micro-batches, joined
      for (const int world : {1, 2, 4, 8}) {
        const std::int64_t accumulation = 8 / world;
        std::vector<std::vector<Indices>> steps;
        for (int rank = 0; rank < world; ++rank) {
          const auto plan = shard_steps(order, {.batch_size = 3, .rank = rank, .world_size = world, .drop_last = drop},
                                        accumulation, tokens);
          for (std::size_t i = 0; i < plan.size(); ++i) {
            steps.resize(std::max(steps.size(), i / static_cast<std::size_t>(accumulation) + 1));
            Indices joined = plan[i].index;
            joined.insert(joined.end(), plan[i].place.begin(), plan[i].place.end());
            steps[i / static_cast<std::size_t>(accumulation)].push_back(joined);
          }
        }
        if (world == 1) of_one = steps;
        ASSERT_EQ(steps, of_one) << size << " examples, " << world << " ranks";
      }
    }
  }
}

TEST(StepArithmetic, EqualsTheTrainersCounts) {
  for (const Json& row : golden().at("steps")) {
    const StepArithmetic counts =
        step_arithmetic(row[0].get<std::int64_t>(),
                        {.batch_size = row[1].get<std::int64_t>(),
                         .world_size = row[2].get<int>(),
                         .drop_last = row[3].get<int>() == 1},
                        row[4].get<std::int64_t>(), row[5].get<double>(), row[6].get<std::int64_t>());
    EXPECT_EQ(counts.micro_batches_per_epoch, row[7].get<std::int64_t>()) << row.dump();
    EXPECT_EQ(counts.steps_per_epoch, row[8].get<std::int64_t>()) << row.dump();
    EXPECT_EQ(counts.total_steps, row[9].get<std::int64_t>()) << row.dump();
    EXPECT_EQ(counts.epochs, row[10].get<std::int64_t>()) << row.dump();
  }
}

TEST(NumpyPermutation, EqualsNumpys) {
  for (const Json& run : golden().at("permutations")) {
    EXPECT_EQ(numpy_permutation(run.at("size").get<std::int64_t>(), run.at("seed").get<std::uint64_t>()),
              run.at("order").get<Indices>())
        << run.at("seed");
  }
  EXPECT_TRUE(numpy_permutation(0, 42).empty());
  const Indices imdb = numpy_permutation(25000, 42);
  std::int64_t weighted_sum = 0;
  for (std::size_t i = 0; i < imdb.size(); ++i) weighted_sum += imdb[i] * static_cast<std::int64_t>(i);
  EXPECT_EQ(Indices(imdb.begin(), imdb.begin() + 10), golden().at("imdb_shuffle").at("first").get<Indices>());
  EXPECT_EQ(weighted_sum, golden().at("imdb_shuffle").at("weighted_sum").get<std::int64_t>());
}

}  // namespace
}  // namespace dtrain
