#include "tests/parallel/collective_checks.h"

#include <cstring>
#include <set>
#include <string>
#include <vector>

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include "core/digest.h"

namespace dtrain::test {
namespace {

std::string digest_of_tensor(const at::Tensor& tensor) {
  return digest_of(std::string_view(static_cast<const char*>(tensor.data_ptr()), tensor.nbytes()));
}

// Irregular numbers of both signs and many magnitudes, by rank and index; no global generator, ranks may be threads.
at::Tensor irregular(int rank, std::int64_t count, at::ScalarType type) {
  at::Tensor values = at::empty({count}, at::kDouble);
  auto* data = values.data_ptr<double>();
  std::uint64_t state = 0x9E3779B97F4A7C15ULL * static_cast<std::uint64_t>(rank + 1);
  for (std::int64_t i = 0; i < count; ++i) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    const double fraction = static_cast<double>(static_cast<std::int64_t>(state >> 11U)) * 0x1p-53 - 0.5;
    data[i] = fraction * static_cast<double>(1ULL << (state >> 60U));
  }
  return values.to(type);
}

}  // namespace

void check_host_comm(RankUnderTest& rank) {
  HostComm& host = rank.host;
  const int n = host.size();
  const int me = host.rank();
  ASSERT_EQ(n, rank.world.world_size);
  ASSERT_EQ(me, rank.world.rank);

  for (int root = 0; root < n; ++root) {
    for (const std::size_t size :
         {std::size_t{0}, std::size_t{5}, std::size_t{192}, std::size_t{193}, std::size_t{300'000}}) {
      std::string bytes = me == root ? std::string(size, static_cast<char>('a' + root)) : "something of another size";
      host.broadcast("broadcast", bytes, root);
      EXPECT_EQ(bytes, std::string(size, static_cast<char>('a' + root)));
    }
  }
  // Ragged: rank r gives r * 1000 bytes, so rank 0 gives none.
  const auto rows =
      host.all_gather("ragged", std::string(static_cast<std::size_t>(me) * 1000, static_cast<char>('0' + me)));
  ASSERT_EQ(rows.size(), static_cast<std::size_t>(n));
  for (int r = 0; r < n; ++r) {
    EXPECT_EQ(rows[static_cast<std::size_t>(r)],
              std::string(static_cast<std::size_t>(r) * 1000, static_cast<char>('0' + r)));
  }
  for (const std::size_t count : {std::size_t{1}, std::size_t{24}, std::size_t{25}, std::size_t{5000}}) {
    std::vector<std::int64_t> sums(count);
    std::vector<std::int64_t> maxima(count);
    std::vector<double> doubles(count);
    for (std::size_t i = 0; i < count; ++i) {
      sums[i] = static_cast<std::int64_t>(i) * 10 + me;
      maxima[i] = static_cast<std::int64_t>(i) - (me == static_cast<int>(i) % n ? 0 : 1000);
      doubles[i] = 0.1 * (me + 1);
    }
    host.all_reduce_sum("sums", std::span(sums));
    host.all_reduce_max("maxima", std::span(maxima));
    host.all_reduce_sum("doubles", std::span(doubles));
    double in_rank_order = 0.1;
    for (int r = 1; r < n; ++r) in_rank_order += 0.1 * (r + 1);
    for (std::size_t i = 0; i < count; ++i) {
      ASSERT_EQ(sums[i], static_cast<std::int64_t>(i) * 10 * n + n * (n - 1) / 2);
      ASSERT_EQ(maxima[i], static_cast<std::int64_t>(i));
      ASSERT_EQ(doubles[i], in_rank_order);
    }
  }
  for (int i = 0; i < 200; ++i) host.barrier("barrier");
}

void check_exact_sums(RankUnderTest& rank) {
  const int n = rank.world.world_size;
  for (const at::ScalarType type : {at::kFloat, at::kDouble, at::kBFloat16, at::kHalf, at::kInt, at::kLong}) {
    for (const std::int64_t count : {0, 1, 7, 31, 32, 33, 1000, 4096, 4097, 20'011}) {
      // Small integers: exact in every type, whatever the order.
      const at::Tensor base = at::arange(count, at::kLong).remainder(13);
      const at::Tensor tensor = (base + rank.world.rank).to(type);
      rank.communicator.all_reduce_sum(tensor, "exact")->wait();
      const at::Tensor expected = (base * n + n * (n - 1) / 2).to(type);
      ASSERT_TRUE(at::equal(tensor, expected)) << c10::toString(type) << " x " << count;
    }
  }
}

void check_equal_bits(RankUnderTest& rank, bool one_node) {
  const int n = rank.world.world_size;
  for (const at::ScalarType type : {at::kFloat, at::kDouble, at::kBFloat16, at::kHalf}) {
    const std::int64_t count = 50'003;
    std::set<std::string> digests;
    for (int run = 0; run < 2; ++run) {
      const at::Tensor tensor = irregular(rank.world.rank, count, type);
      rank.communicator.all_reduce_sum(tensor, "irregular")->wait();
      for (const std::string& digest : rank.host.all_gather("digests", digest_of_tensor(tensor)))
        digests.insert(digest);
    }
    EXPECT_EQ(digests.size(), 1U) << c10::toString(type);
    if (!one_node || n == 1) continue;
    const at::ScalarType wide = type == at::kDouble ? at::kDouble : at::kFloat;
    at::Tensor sum = irregular(0, count, type).to(wide);
    for (int r = 1; r < n; ++r) sum += irregular(r, count, type).to(wide);
    EXPECT_EQ(digest_of_tensor(sum.to(type)), *digests.begin()) << c10::toString(type);
  }
}

void check_large(RankUnderTest& rank) {
  const int n = rank.world.world_size;
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    const at::Tensor base = at::arange(3'000'001, at::kLong).remainder(13);
    const at::Tensor tensor = (base + rank.world.rank).to(type);
    rank.communicator.all_reduce_sum(tensor, "large")->wait();
    EXPECT_TRUE(at::equal(tensor, (base * n + n * (n - 1) / 2).to(type))) << c10::toString(type);
    const at::Tensor copy = rank.world.rank == n - 1 ? tensor.clone() : at::zeros_like(tensor);
    rank.communicator.broadcast(copy, n - 1, "large")->wait();
    EXPECT_TRUE(at::equal(copy, tensor)) << c10::toString(type);
  }
}

void check_broadcast_and_gather(RankUnderTest& rank) {
  const int n = rank.world.world_size;
  for (int root = 0; root < n; ++root) {
    for (const std::int64_t count : {0, 1, 100, 20'001}) {
      const at::Tensor expected = irregular(root, count, at::kFloat);
      const at::Tensor tensor = rank.world.rank == root ? expected.clone() : at::zeros({count}, at::kFloat);
      rank.communicator.broadcast(tensor, root, "weights")->wait();
      ASSERT_TRUE(at::equal(tensor, expected)) << "from " << root << " x " << count;
    }
  }
  const at::Tensor input = at::full({3, 7001}, rank.world.rank + 1, at::kShort);
  const at::Tensor output = at::zeros({n, 3, 7001}, at::kShort);
  rank.communicator.all_gather(output, input, "rows")->wait();
  for (int r = 0; r < n; ++r) ASSERT_TRUE(at::equal(output[r], at::full({3, 7001}, r + 1, at::kShort))) << r;
}

void check_many_small(RankUnderTest& rank) {
  const int n = rank.world.world_size;
  const at::Tensor tensor = at::zeros({5}, at::kLong);
  for (int i = 0; i < 1000; ++i) {
    tensor.fill_(i + rank.world.rank);
    rank.communicator.all_reduce_sum(tensor, "small")->wait();
    ASSERT_EQ(tensor[4].item<std::int64_t>(), static_cast<std::int64_t>(i) * n + n * (n - 1) / 2) << i;
  }
}

void check_overlapping(RankUnderTest& rank) {
  const int n = rank.world.world_size;
  std::vector<at::Tensor> tensors;
  std::vector<WorkPtr> works;
  for (int i = 0; i < 20; ++i) {
    tensors.push_back(at::full({1 + i * 1000}, i + rank.world.rank, at::kFloat));
    works.push_back(rank.communicator.all_reduce_sum(tensors.back(), "overlapping"));
  }
  for (std::size_t i = tensors.size(); i-- > 0;) {
    works[i]->wait();
    EXPECT_TRUE(works[i]->done());
    const auto expected = static_cast<double>(static_cast<int>(i) * n + n * (n - 1) / 2);
    EXPECT_TRUE(at::equal(tensors[i], at::full_like(tensors[i], expected))) << i;
  }
}

}  // namespace dtrain::test
