// The divided optimizer: the same bits as the whole one, a share of its memory, the same state.
#include <algorithm>
#include <mutex>
#include <numeric>

#include <ATen/Parallel.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "core/random.h"
#include "dist/thread_ranks.h"
#include "tests/support/temp_folder.h"
#include "trainer/optim/sharded_optimizer.h"

namespace dtrain {
namespace {

using Run = std::pair<std::string, std::string>;  // optimizer and arguments

// One parameter that is most of the model, as an embedding is, and small ones; one never has a gradient.
std::vector<NamedParameter> parameters() {
  const std::vector<std::pair<std::string, std::vector<std::int64_t>>> shapes = {
      {"embedding.weight", {401, 7}}, {"dense.weight", {30, 10}}, {"dense.bias", {30}},
      {"idle.weight", {50, 3}},       {"head.weight", {2, 10}},   {"head.bias", {2}}};
  std::vector<NamedParameter> result;
  std::uint64_t draw = 0;
  for (const auto& [name, shape] : shapes) {
    at::Tensor value = at::zeros(shape);
    float* data = value.mutable_data_ptr<float>();
    for (std::int64_t i = 0; i < value.numel(); ++i)
      data[i] = static_cast<float>(mix64(++draw) >> 40) / (1 << 24) - 0.5F;
    value.requires_grad_(true);
    result.push_back({name, value, !name.ends_with("bias")});
  }
  result[4].group = 1;
  result[4].weight_decay = 0.3;
  return result;
}

void set_gradients(std::vector<NamedParameter>& given, std::uint64_t step) {
  std::uint64_t draw = 1'000'000 * step;
  for (NamedParameter& parameter : given) {
    if (parameter.name == "idle.weight") continue;
    at::Tensor gradient = at::zeros(parameter.value.sizes());
    float* data = gradient.mutable_data_ptr<float>();
    for (std::int64_t i = 0; i < gradient.numel(); ++i) {
      data[i] = static_cast<float>(mix64(++draw) >> 40) / (1 << 24) - 0.5F;
    }
    parameter.value.mutable_grad() = gradient;
  }
}

void step(std::vector<NamedParameter>& given, Optimizer& optimizer, std::uint64_t number) {
  set_gradients(given, number);
  optimizer.step(std::vector<double>{1e-2 / static_cast<double>(number), 3e-2}, 0.5);
}

OptimizerOptions options_of(const Run& run) {
  return {.name = run.first, .arguments = run.second, .adamw = {.weight_decay = 0.1}};
}

void expect_same(const NamedTensors& actual, const NamedTensors& expected, const std::string& what) {
  ASSERT_EQ(actual.size(), expected.size()) << what;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(actual[i].first, expected[i].first) << what;
    EXPECT_TRUE(at::equal(actual[i].second, expected[i].second)) << what << " " << expected[i].first;
  }
}

class ShardedOptimizers : public testing::TestWithParam<Run> {};

TEST_P(ShardedOptimizers, GiveTheBitsOfTheWholeOneOnAnyNumberOfRanks) {
  at::set_num_threads(1);
  std::vector<NamedParameter> whole = parameters();
  const auto reference = make_optimizer(whole, options_of(GetParam()));
  const test::TempFolder folder;
  constexpr std::uint64_t kSteps = 6;
  for (std::uint64_t number = 1; number <= kSteps; ++number) step(whole, *reference, number);
  const NamedTensors state = reference->state();
  const auto file = folder.path() / "optimizer.safetensors";
  for (const int ranks : {1, 2, 4}) {
    const std::string what = fmt::format("{} with {} ranks", GetParam().first, ranks);
    run_thread_ranks(ranks, [&](ThreadRank& rank) {
      std::vector<NamedParameter> mine = parameters();
      auto optimizer = make_sharded_optimizer(mine, options_of(GetParam()), rank.communicator);
      for (std::uint64_t number = 1; number <= kSteps / 2; ++number) step(mine, *optimizer, number);
      // Half-way the state goes into a file and another optimizer reads it.
      const NamedTensors saved = optimizer->state();
      if (rank.world.rank == 0) write_safetensors(file, saved, {});
      rank.host.barrier("file is there");
      optimizer = make_sharded_optimizer(mine, options_of(GetParam()), rank.communicator);
      optimizer->load_state(SafetensorsFile(file));
      for (std::uint64_t number = kSteps / 2 + 1; number <= kSteps; ++number) step(mine, *optimizer, number);
      for (std::size_t i = 0; i < whole.size(); ++i) {
        EXPECT_TRUE(at::equal(mine[i].value, whole[i].value))
            << what << ", rank " << rank.world.rank << ": " << whole[i].name;
      }
      const NamedTensors gathered = optimizer->state();
      expect_same(gathered, rank.world.rank == 0 ? state : NamedTensors(), what);
    });
  }
}

INSTANTIATE_TEST_SUITE_P(All, ShardedOptimizers,
                         testing::Values(Run{"adamw_torch", ""}, Run{"sgd", "momentum=0.9"}, Run{"adagrad", ""},
                                         Run{"rmsprop", "momentum=0.5,centered=true"}, Run{"adafactor", ""},
                                         Run{"lion", ""}),
                         [](const auto& test) { return test.param.first; });

TEST(ShardedOptimizer, StateOfAnyNumberOfRanksIsReadByAnyOther) {
  at::set_num_threads(1);
  const test::TempFolder folder;
  const auto file = folder.path() / "optimizer.safetensors";
  std::vector<NamedParameter> whole = parameters();
  const auto reference = make_optimizer(whole, options_of({"adamw_torch", ""}));
  const std::vector<int> attempts = {2, 1, 4, 3, 1};
  std::vector<at::Tensor> values;  // of the parameters after the attempt before
  for (const NamedParameter& each : whole) values.push_back(each.value.detach().clone());
  for (std::size_t attempt = 0; attempt < attempts.size(); ++attempt) {
    const std::uint64_t number = attempt + 1;
    step(whole, *reference, number);
    std::vector<at::Tensor> next(whole.size());
    run_thread_ranks(attempts[attempt], [&](ThreadRank& rank) {
      std::vector<NamedParameter> mine = parameters();
      for (std::size_t i = 0; i < mine.size(); ++i) mine[i].value.detach().copy_(values[i]);
      const auto optimizer = make_sharded_optimizer(mine, options_of({"adamw_torch", ""}), rank.communicator);
      if (attempt > 0) optimizer->load_state(SafetensorsFile(file));
      step(mine, *optimizer, number);
      rank.host.barrier("all have read");
      const NamedTensors state = optimizer->state();
      if (rank.world.rank != 0) return;
      write_safetensors(file, state, {});
      for (std::size_t i = 0; i < mine.size(); ++i) next[i] = mine[i].value.detach();
    });
    values = next;
    for (std::size_t i = 0; i < whole.size(); ++i) EXPECT_TRUE(at::equal(values[i], whole[i].value)) << whole[i].name;
  }
}

TEST(ShardedOptimizer, EachRankKeepsItsShareOfTheStateOnly) {
  const std::int64_t whole = make_optimizer(parameters(), options_of({"adamw_torch", ""}))->state_bytes();
  for (const int ranks : {2, 4}) {
    std::mutex mutex;
    std::vector<std::int64_t> bytes;
    run_thread_ranks(ranks, [&](ThreadRank& rank) {
      const auto optimizer = make_sharded_optimizer(parameters(), options_of({"adamw_torch", ""}), rank.communicator);
      const std::lock_guard lock(mutex);
      bytes.push_back(optimizer->state_bytes());
    });
    for (const std::int64_t each : bytes) {
      // Cuts are at multiples of 64 elements of two moments, and each piece counts its updates.
      EXPECT_NEAR(static_cast<double>(each), static_cast<double>(whole) / ranks, 64 * 2 * 4 + 6 * 8) << ranks;
    }
  }
}

TEST(ShardedOptimizer, AStateThatDoesNotFitIsTheSameErrorOnAllRanksAndChangesNothing) {
  const test::TempFolder folder;
  const auto file = folder.path() / "optimizer.safetensors";
  NamedTensors tensors = make_optimizer(parameters(), options_of({"adamw_torch", ""}))->state();
  for (auto& [name, tensor] : tensors) tensor = tensor.clone().fill_(1);
  tensors.back().second = at::zeros({3}, at::kLong);  // the last parameter's, so of the last rank
  write_safetensors(file, tensors, {});
  run_thread_ranks(2, [&](ThreadRank& rank) {
    const auto optimizer = make_sharded_optimizer(parameters(), options_of({"adamw_torch", ""}), rank.communicator);
    try {
      optimizer->load_state(SafetensorsFile(file));
      ADD_FAILURE() << "no error on rank " << rank.world.rank;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kData);
      EXPECT_THAT(error.what(), testing::HasSubstr("head.bias.step"));
    }
    for (const auto& [name, tensor] : optimizer->state())
      EXPECT_EQ(tensor.count_nonzero().item<std::int64_t>(), 0) << name;
  });
}

TEST(DivideParameters, CutsGiveEveryRankTheSameAndCoverAllOnce) {
  for (const std::vector<std::int64_t>& sizes :
       {std::vector<std::int64_t>{11'720'448, 196'608, 768, 384, 384, 147'456, 384, 147'456, 384},
        {64, 0, 1, 300},
        {5},
        {0},
        std::vector<std::int64_t>(200, 1000),
        {63, 1, 10'000'001}}) {
    const std::int64_t total = std::accumulate(sizes.begin(), sizes.end(), std::int64_t{0});
    for (const int ranks : {1, 2, 3, 4, 7, 16}) {
      for (const bool cut : {true, false}) {
        std::vector<std::int64_t> next(sizes.size(), 0);
        std::vector<std::int64_t> load(static_cast<std::size_t>(ranks), 0);
        std::vector<bool> seen(sizes.size(), false);
        for (const ShareSegment& segment : divide_parameters(sizes, ranks, cut)) {
          EXPECT_EQ(segment.offset, next[segment.parameter]) << "a gap or an overlap";
          EXPECT_EQ(segment.offset % 64, 0);
          EXPECT_TRUE(cut || segment.count == sizes[segment.parameter]);
          next[segment.parameter] += segment.count;
          seen[segment.parameter] = true;
          load.at(static_cast<std::size_t>(segment.owner)) += segment.count;
        }
        EXPECT_EQ(next, sizes);
        EXPECT_EQ(std::count(seen.begin(), seen.end(), true), std::ssize(sizes));
        if (!cut) continue;
        for (const std::int64_t each : load) {
          EXPECT_NEAR(static_cast<double>(each), static_cast<double>(total) / ranks, 64 + 1) << ranks << " ranks";
        }
      }
    }
  }
}

TEST(DivideParameters, WholeParametersGoToTheRankWithTheLeast) {
  std::vector<int> owners;
  for (const ShareSegment& segment : divide_parameters({10, 100, 40, 50, 15}, 2, false))
    owners.push_back(segment.owner);
  EXPECT_EQ(owners, std::vector<int>({0, 0, 1, 1, 1}));
}

}  // namespace
}  // namespace dtrain
