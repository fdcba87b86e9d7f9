// When the reducer starts which collective, and what it refuses. Sums are checked in collectives_test.cpp.
#include <algorithm>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "dist/reducer.h"
#include "dist/thread_ranks.h"

namespace dtrain::test {
namespace {

// Writes down what is started; every Work is done at once, or throws.
class Recorder final : public Communicator {
 public:
  class RecordedWork final : public Work {
   public:
    explicit RecordedWork(bool fails) : fails_(fails) {}
    void wait() override {
      if (fails_) throw Error(ExitCode::kStalled, "no answer");
    }
    bool done() override { return true; }
    double elapsed() override { return 0; }

   private:
    bool fails_;
  };

  [[nodiscard]] int rank() const override { return 0; }
  [[nodiscard]] int size() const override { return 2; }
  [[nodiscard]] std::string_view backend() const override { return "recorder"; }
  WorkPtr all_reduce_sum(const at::Tensor& tensor, std::string_view name) override {
    if (refuses) throw Error(ExitCode::kDisagree, "refused");
    started.emplace_back(name);
    elements.push_back(tensor.numel());
    return std::make_shared<RecordedWork>(fails);
  }
  WorkPtr broadcast(const at::Tensor& /*tensor*/, int /*root*/, std::string_view /*name*/) override { return nullptr; }
  WorkPtr all_gather(const at::Tensor& /*output*/, const at::Tensor& /*input*/, std::string_view /*name*/) override {
    return nullptr;
  }

  std::vector<std::string> started;
  std::vector<std::int64_t> elements;
  bool fails = false;
  bool refuses = false;
};

std::vector<at::Tensor> four_parameters() {
  std::vector<at::Tensor> parameters;
  for (int i = 0; i < 4; ++i) parameters.push_back(at::ones({16}).requires_grad_(true));
  return parameters;
}

constexpr ReducerOptions kBucketEach{.first_bucket_bytes = 64, .bucket_bytes = 64};
using Names = std::vector<std::string>;

TEST(Reducer, StartsBucketsDuringBackwardInOneOrder) {
  auto recorder = std::make_shared<Recorder>();
  const auto parameters = four_parameters();
  Reducer reducer(parameters, recorder, kBucketEach);
  reducer.begin_step();
  const auto backward = [&](std::size_t i) { parameters[i].sum().backward(); };
  backward(0);  // the last bucket: has to wait for those before it
  backward(2);
  EXPECT_EQ(recorder->started, Names{});
  backward(3);
  EXPECT_EQ(recorder->started, (Names{"bucket 0", "bucket 1"}));
  backward(1);
  EXPECT_EQ(recorder->started, (Names{"bucket 0", "bucket 1", "bucket 2", "bucket 3"}));
  reducer.finish();
  EXPECT_EQ(recorder->started.size(), 4U);
}

TEST(Reducer, CommunicatesOnlyInTheLastMicroBatch) {
  auto recorder = std::make_shared<Recorder>();
  const auto parameters = four_parameters();
  Reducer reducer(parameters, recorder, kBucketEach);
  reducer.begin_step();
  reducer.set_sync(false);
  for (int i = 0; i < 3; ++i) {
    for (const at::Tensor& parameter : parameters) parameter.sum().backward();
  }
  EXPECT_TRUE(recorder->started.empty());
  reducer.set_sync(true);
  for (const at::Tensor& parameter : parameters) parameter.sum().backward();
  EXPECT_EQ(recorder->started.size(), 4U);
  reducer.finish();
  for (const at::Tensor& parameter : parameters) EXPECT_TRUE(at::equal(parameter.grad(), at::zeros({16}) + 4));
}

TEST(Reducer, PacksBucketsInReverseOrderWithAlignedSlots) {
  std::vector<at::Tensor> parameters;
  for (const int size : {100, 3, 5, 1, 7}) parameters.push_back(at::ones({size}).requires_grad_(true));
  Reducer reducer(parameters, nullptr, {.first_bucket_bytes = 128, .bucket_bytes = 192});
  const auto& slots = reducer.slots();
  // From the last: 7 and 1 fill the first bucket (2 x 64 bytes), 5 and 3 the second; 100 floats need one of their own.
  EXPECT_EQ(slots[4].bucket, 0U);
  EXPECT_EQ(slots[4].offset, 0);
  EXPECT_EQ(slots[3].bucket, 0U);
  EXPECT_EQ(slots[3].offset, 16);
  EXPECT_EQ(slots[2].bucket, 1U);
  EXPECT_EQ(slots[1].bucket, 1U);
  EXPECT_EQ(slots[0].bucket, 2U);
  EXPECT_EQ(slots[0].count, 100);
  ASSERT_EQ(reducer.buckets().size(), 3U);
  EXPECT_EQ(reducer.buckets()[2].numel(), 112);
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    EXPECT_EQ(parameters[i].grad().data_ptr<float>(),
              reducer.buckets()[slots[i].bucket].data_ptr<float>() + slots[i].offset);
  }
}

TEST(Reducer, GradientsSurviveIt) {
  const auto parameters = four_parameters();
  {
    Reducer reducer(parameters, nullptr, {});
    reducer.begin_step();
    (parameters[0] * at::arange(16)).sum().backward();
    reducer.finish();
  }
  EXPECT_TRUE(at::equal(parameters[0].grad(), at::arange(16, at::kFloat)));
  // No hook is left: autograd accumulates as usual, and another reducer may take over.
  parameters[0].sum().backward();
  EXPECT_TRUE(at::equal(parameters[0].grad(), at::arange(16, at::kFloat) + 1));
  Reducer another(parameters, nullptr, {});
  EXPECT_TRUE(at::equal(parameters[0].grad(), at::zeros({16})));
}

TEST(Reducer, SecondGradientInAStepLeavesBackwardAndFinish) {
  auto recorder = std::make_shared<Recorder>();
  const auto parameters = four_parameters();
  Reducer reducer(parameters, recorder, kBucketEach);
  reducer.begin_step();
  parameters[3].sum().backward();
  const auto message_of = [](const auto& action) {
    try {
      action();
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("nothing");
  };
  EXPECT_NE(message_of([&] { parameters[3].sum().backward(); }).find("set_sync(false)"), std::string::npos);
  EXPECT_NE(message_of([&] { reducer.finish(); }).find("set_sync(false)"), std::string::npos);
}

TEST(Reducer, ErrorsOfTheCommunicatorLeaveBackwardOrFinish) {
  auto recorder = std::make_shared<Recorder>();
  const auto parameters = four_parameters();
  Reducer reducer(parameters, recorder, kBucketEach);
  reducer.begin_step();
  recorder->refuses = true;
  EXPECT_THROW(parameters[3].sum().backward(), Error);
  EXPECT_THROW(reducer.finish(), Error);

  auto slow = std::make_shared<Recorder>();
  slow->fails = true;
  const auto others = four_parameters();
  Reducer second(others, slow, kBucketEach);
  second.begin_step();
  others[3].sum().backward();
  EXPECT_THROW(second.finish(), Error);
}

TEST(Reducer, RefusesWhatItCannotReduce) {
  const auto parameters = four_parameters();
  Reducer reducer(parameters, nullptr, {});
  EXPECT_THROW(parameters[0].sum().backward(), Error) << "before begin_step()";
  EXPECT_THROW(reducer.finish(), Error);
  EXPECT_THROW(Reducer(parameters, nullptr, {}), Error) << "they already have a reducer";
  EXPECT_THROW(Reducer({}, nullptr, {}), Error);
  EXPECT_THROW(Reducer({at::ones({3})}, nullptr, {}), Error) << "requires no gradient";
  const at::Tensor twice = at::ones({3}).requires_grad_(true);
  EXPECT_THROW(Reducer({twice, twice}, nullptr, {}), Error);
  EXPECT_NO_THROW(Reducer({twice}, nullptr, {})) << "a failed construction leaves no hook behind";
}

// Gradients that arrive in any order, on each rank in one of its own: the order of the buckets is the plan's, the sum
// the same.
TEST(Reducer, AThousandOrdersOfArrivalGiveOneSum) {
  constexpr int kRanks = 3;
  constexpr int kOrders = 1000;
  at::set_num_threads(1);
  run_thread_ranks(kRanks, [](ThreadRank& rank) {
    std::vector<at::Tensor> parameters;
    for (int i = 0; i < 10; ++i) parameters.push_back(at::ones({5 * i + 1}).requires_grad_(true));
    Reducer reducer(parameters, rank.communicator, {.first_bucket_bytes = 64, .bucket_bytes = 200});
    std::mt19937 random(static_cast<unsigned>(rank.world.rank));
    std::vector<std::size_t> order(parameters.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::vector<at::Tensor> first;
    for (int i = 0; i < kOrders; ++i) {
      reducer.begin_step();
      for (const std::size_t index : order) {
        const at::Tensor factor =
            at::arange(parameters[index].numel(), at::kFloat).add(0.1F).mul(rank.world.rank + 0.3);
        (parameters[index] * factor).sum().backward();
      }
      reducer.finish();
      if (i == 0) {
        for (const at::Tensor& parameter : parameters) first.push_back(parameter.grad().clone());
      }
      for (std::size_t p = 0; p < parameters.size(); ++p) ASSERT_TRUE(at::equal(parameters[p].grad(), first[p])) << i;
      std::shuffle(order.begin(), order.end(), random);
    }
  });
}

}  // namespace
}  // namespace dtrain::test
