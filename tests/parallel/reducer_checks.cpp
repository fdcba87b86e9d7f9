#include "tests/parallel/reducer_checks.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <string>
#include <vector>

#include <ATen/TensorOperators.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include "core/digest.h"
#include "core/error.h"
#include "dist/reducer.h"

namespace dtrain::test {
namespace {

constexpr std::int64_t kExamples = 12;  // divisible by 1, 2, 3 and 4
constexpr std::int64_t kWidth = 24;

at::Tensor numbers(at::IntArrayRef shape, double phase) {
  return at::arange(c10::multiply_integers(shape), at::kDouble).mul(0.37).add(phase).sin().view(shape).contiguous();
}

// Two layers, a weight that is used in both (twice in the graph), and a parameter whose memory is transposed.
struct Net {
  std::vector<at::Tensor> parameters;

  Net() {
    parameters = {numbers({kWidth, 8}, 0.1), numbers({kWidth}, 0.2),        numbers({kWidth, kWidth}, 0.3),
                  numbers({kWidth}, 0.4),    numbers({kWidth, 3}, 0.5).t(), numbers({3}, 0.6)};
    for (at::Tensor& parameter : parameters) parameter.requires_grad_(true);
  }

  at::Tensor loss(const at::Tensor& x) const {
    at::Tensor h = at::tanh(at::linear(x, parameters[0], parameters[1]));
    h = at::tanh(at::linear(h, parameters[2], parameters[3]));
    h = at::tanh(at::linear(h, parameters[2], parameters[3]));
    return at::linear(h, parameters[4], parameters[5]).square().sum() / static_cast<double>(kExamples);
  }
};

at::Tensor examples() { return numbers({kExamples, 8}, 0.9); }

at::Tensor my_examples(const World& world) {
  const std::int64_t share = kExamples / world.world_size;
  return examples().narrow(0, share * world.rank, share);
}

std::vector<at::Tensor> expected_gradients() {
  Net net;
  net.loss(examples()).backward();
  std::vector<at::Tensor> gradients;
  for (const at::Tensor& parameter : net.parameters) gradients.push_back(parameter.grad().clone());
  return gradients;
}

void expect_gradients(const Net& net, const std::vector<at::Tensor>& expected, const char* what) {
  for (std::size_t i = 0; i < expected.size(); ++i) {
    ASSERT_TRUE(net.parameters[i].grad().defined()) << what << ", parameter " << i;
    EXPECT_TRUE(at::allclose(net.parameters[i].grad(), expected[i], 1e-12, 1e-12)) << what << ", parameter " << i;
  }
}

void expect_equal_bits(HostComm& host, const Reducer& reducer) {
  Digest digest;
  for (const at::Tensor& bucket : reducer.buckets()) {
    digest.add(std::string_view(static_cast<const char*>(bucket.data_ptr()), bucket.nbytes()));
  }
  const auto all = host.all_gather("buckets", digest.hex());
  EXPECT_EQ(std::set<std::string>(all.begin(), all.end()).size(), 1U);
}

void check_against_autograd(const World& world, HostComm& host, const std::shared_ptr<Communicator>& communicator,
                            ReducerOptions options) {
  const auto expected = expected_gradients();
  Net net;
  Reducer reducer(net.parameters, communicator, options);
  const at::Tensor mine = my_examples(world);
  for (int step = 0; step < 3; ++step) {
    reducer.begin_step();
    net.loss(mine).backward();
    reducer.finish();
    expect_gradients(net, expected, "one backward");
    expect_equal_bits(host, reducer);
    EXPECT_TRUE(net.parameters[0].grad().is_alias_of(reducer.buckets()[reducer.slots()[0].bucket]));
  }
  // Micro-batches: only the last one communicates.
  reducer.begin_step();
  const std::int64_t rows = mine.size(0);
  for (std::int64_t r = 0; r < rows; ++r) {
    reducer.set_sync(r + 1 == rows);
    net.loss(mine.narrow(0, r, 1)).backward();
  }
  reducer.finish();
  expect_gradients(net, expected, "accumulation");
  // zero_grad(set_to_none) before the step's first gradient.
  reducer.begin_step();
  for (at::Tensor& parameter : net.parameters) parameter.mutable_grad().reset();
  net.loss(mine).backward();
  reducer.finish();
  expect_gradients(net, expected, "set to none");
  EXPECT_TRUE(net.parameters[2].grad().is_alias_of(reducer.buckets()[reducer.slots()[2].bucket]));
  expect_equal_bits(host, reducer);
}

// One backward per parameter, in an order of each rank's own.
void check_permuted_order(const World& world, HostComm& host, const std::shared_ptr<Communicator>& communicator) {
  std::vector<at::Tensor> parameters;
  for (int i = 0; i < 15; ++i) parameters.push_back(numbers({i + 1}, i).requires_grad_(true));
  Reducer reducer(parameters, communicator, {.first_bucket_bytes = 64, .bucket_bytes = 200});
  ASSERT_GT(reducer.buckets().size(), 4U);
  for (int step = 0; step < 5; ++step) {
    reducer.begin_step();
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      // A multiplier without a common divisor with 15 permutes the indices.
      static constexpr std::size_t kMultipliers[] = {1, 2, 4, 7};
      const std::size_t index = (i * kMultipliers[world.rank % 4] + static_cast<std::size_t>(step)) % parameters.size();
      (parameters[index] * static_cast<double>(world.rank + 1)).sum().backward();
    }
    reducer.finish();
    const double total = world.world_size * (world.world_size + 1) / 2.0;
    for (const at::Tensor& parameter : parameters) {
      EXPECT_TRUE(at::equal(parameter.grad(), at::zeros_like(parameter) + total));
    }
    expect_equal_bits(host, reducer);
  }
}

// Rank r does not use parameter r: it counts as zero there, also when the user had set it to none.
void check_unused(const World& world, HostComm& host, const std::shared_ptr<Communicator>& communicator) {
  std::vector<at::Tensor> parameters;
  for (int i = 0; i < 6; ++i) parameters.push_back(numbers({5}, i).requires_grad_(true));
  Reducer reducer(parameters, communicator, {.first_bucket_bytes = 64, .bucket_bytes = 64});
  for (int step = 0; step < 3; ++step) {
    reducer.begin_step();
    for (int i = 0; i < 6; ++i) {
      at::Tensor& parameter = parameters[static_cast<std::size_t>(i)];
      if (step == 1) parameter.mutable_grad().reset();
      if (i != world.rank && i != 5) (parameter * 2.0).sum().backward();
    }
    reducer.finish();
    for (int i = 0; i < 6; ++i) {
      const double users = i == 5 ? 0 : world.world_size - (i < world.world_size ? 1 : 0);
      EXPECT_TRUE(
          at::equal(parameters[static_cast<std::size_t>(i)].grad(), at::zeros_like(parameters[0]) + 2.0 * users))
          << "step " << step << " parameter " << i;
    }
    expect_equal_bits(host, reducer);
  }
}

void check_types(const World& world, HostComm& host, const std::shared_ptr<Communicator>& communicator) {
  std::vector<at::Tensor> parameters = {numbers({9}, 1).to(at::kFloat), numbers({9}, 2).to(at::kBFloat16),
                                        numbers({9}, 3).to(at::kFloat)};
  for (at::Tensor& parameter : parameters) parameter.requires_grad_(true);
  Reducer reducer(parameters, communicator, {});
  EXPECT_EQ(reducer.buckets().size(), 3U);
  reducer.begin_step();
  for (const at::Tensor& parameter : parameters) (parameter * 3).sum().backward();
  reducer.finish();
  for (const at::Tensor& parameter : parameters) {
    EXPECT_TRUE(at::equal(parameter.grad(), at::zeros_like(parameter) + 3 * world.world_size));
  }
  expect_equal_bits(host, reducer);
}

// The gradient of parameter `index` in micro-batch `number` of the step: float32 numbers of very different sizes, whose
// sum depends on the order.
at::Tensor gradient_of(std::int64_t number, std::int64_t index, std::int64_t count) {
  const double size = std::pow(10.0, static_cast<double>((number * 7 + index) % 5));
  return numbers({count}, static_cast<double>(number) + 0.1 * static_cast<double>(index)).mul(size).to(at::kFloat);
}

at::Tensor tree_of_gradients(std::int64_t first, std::int64_t micro_batches, std::int64_t index, std::int64_t count) {
  if (micro_batches == 1) return gradient_of(first, index, count);
  const std::int64_t half = micro_batches / 2;
  return tree_of_gradients(first, half, index, count) + tree_of_gradients(first + half, half, index, count);
}

// Whatever the number of ranks: the sum of the micro-batches as one binary tree, to the last bit.
void check_fixed_tree(const World& world, HostComm& host, const std::shared_ptr<Communicator>& communicator) {
  constexpr std::int64_t kMicroBatches = 8;
  std::vector<at::Tensor> parameters;
  for (int i = 0; i < 9; ++i) parameters.push_back(numbers({7 * i + 3}, i).to(at::kFloat).requires_grad_(true));
  const ReducerOptions options{.first_bucket_bytes = 64, .bucket_bytes = 200, .fixed_tree = true};
  if (kMicroBatches % world.world_size != 0) {
    EXPECT_THROW(Reducer(parameters, communicator, options), Error);
    return;
  }
  const std::int64_t share = kMicroBatches / world.world_size;
  Reducer reducer(parameters, communicator, options);
  for (int step = 0; step < 3; ++step) {
    reducer.begin_step();
    for (std::int64_t m = 0; m < share; ++m) {
      reducer.set_sync(m + 1 == share);
      const std::int64_t number = world.rank * share + m;
      for (std::size_t i = 0; i < parameters.size(); ++i) {
        const std::size_t index = (i * 4 + static_cast<std::size_t>(world.rank)) % parameters.size();
        (parameters[index] * gradient_of(number + step, static_cast<std::int64_t>(index), parameters[index].numel()))
            .sum()
            .backward();
      }
      if (m + 1 < share) reducer.end_micro_batch();
    }
    reducer.finish();
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      EXPECT_TRUE(at::equal(parameters[i].grad(), tree_of_gradients(step, kMicroBatches, static_cast<std::int64_t>(i),
                                                                    parameters[i].numel())))
          << "step " << step << " parameter " << i;
    }
    expect_equal_bits(host, reducer);
  }
}

}  // namespace

void check_reducer(const World& world, HostComm& host, const std::shared_ptr<Communicator>& communicator) {
  check_against_autograd(world, host, communicator, {});
  check_against_autograd(world, host, communicator, {.first_bucket_bytes = 1, .bucket_bytes = 1});
  check_against_autograd(world, host, communicator, {.first_bucket_bytes = 300, .bucket_bytes = 2000});
  check_permuted_order(world, host, communicator);
  check_unused(world, host, communicator);
  check_types(world, host, communicator);
  check_fixed_tree(world, host, communicator);
}

}  // namespace dtrain::test
