// NCCL between the ranks of mpirun, one GPU each. Without a GPU for every rank the program says so and exits with 77,
// which ctest counts as "not run".
#include <cstdint>
#include <cstdio>
#include <span>

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include "dist/gpu_backend.h"
#include "dist/mpi_session.h"
#include "dist/reducer.h"

namespace dtrain::test {
namespace {

constexpr int kNotRun = 77;
MpiSession* the_session = nullptr;

std::shared_ptr<Communicator> make_nccl() {
  const World& world = the_session->world();
  load_gpu_backend().set_device(world.local_rank);
  return load_gpu_backend().make_communicator(world, the_session->host(), {.deadline_seconds = 60});
}

at::TensorOptions on_gpu(at::ScalarType type) {
  return at::TensorOptions().dtype(type).device(
      at::Device(at::kCUDA, static_cast<at::DeviceIndex>(the_session->world().local_rank)));
}

TEST(Gpu, Properties) {
  GpuBackend& gpu = load_gpu_backend();
  const int device = the_session->world().local_rank;
  ASSERT_GT(gpu.device_count(), device);
  EXPECT_FALSE(gpu.device_name(device).empty());
  EXPECT_GT(gpu.memory(device).total_bytes, gpu.memory(device).free_bytes);
  EXPECT_NE(gpu.versions().find("NCCL 2."), std::string::npos);
}

TEST(Gpu, Collectives) {
  const World& world = the_session->world();
  const auto communicator = make_nccl();
  EXPECT_EQ(communicator->backend(), "nccl");
  const int n = world.world_size;
  for (const at::ScalarType type : {at::kFloat, at::kDouble, at::kBFloat16, at::kHalf, at::kInt, at::kLong}) {
    for (const std::int64_t count : {1, 33, 100'001}) {
      const at::Tensor base = at::arange(count, on_gpu(at::kLong)).remainder(13);
      const at::Tensor tensor = (base + world.rank).to(type);
      const WorkPtr work = communicator->all_reduce_sum(tensor, "exact");
      work->wait();
      EXPECT_TRUE(at::equal(tensor, (base * n + n * (n - 1) / 2).to(type))) << c10::toString(type) << " x " << count;
      EXPECT_TRUE(work->done());
    }
  }
  const at::Tensor weights = at::full({1000}, world.rank, on_gpu(at::kFloat));
  communicator->broadcast(weights, n - 1, "weights")->wait();
  EXPECT_TRUE(at::equal(weights, at::full({1000}, n - 1, on_gpu(at::kFloat))));
  const at::Tensor rows = at::zeros({n, 10}, on_gpu(at::kLong));
  communicator->all_gather(rows, at::full({10}, world.rank, on_gpu(at::kLong)), "rows")->wait();
  EXPECT_TRUE(at::equal(rows, at::arange(n, on_gpu(at::kLong)).view({n, 1}).expand({n, 10})));
}

TEST(Gpu, Reducer) {
  const World& world = the_session->world();
  const auto communicator = make_nccl();
  std::vector<at::Tensor> parameters;
  for (int i = 0; i < 8; ++i) parameters.push_back(at::full({1000 + i}, 0.5, on_gpu(at::kFloat)).requires_grad_(true));
  Reducer reducer(parameters, communicator, {.first_bucket_bytes = 4096, .bucket_bytes = 10'000});
  for (int step = 0; step < 3; ++step) {
    reducer.begin_step();
    at::Tensor loss = at::zeros({}, on_gpu(at::kFloat));
    for (const at::Tensor& parameter : parameters) loss = loss + (parameter * (world.rank + 1)).sum();
    loss.backward();
    reducer.finish();
    const double total = world.world_size * (world.world_size + 1) / 2.0;
    for (const at::Tensor& parameter : parameters) {
      EXPECT_TRUE(at::equal(parameter.grad(), at::zeros_like(parameter) + total));
    }
  }
}

}  // namespace
}  // namespace dtrain::test

int main(int argc, char** argv) {
  using namespace dtrain;
  testing::InitGoogleTest(&argc, argv);
  try {
    MpiSession session;
    test::the_session = &session;
    std::int64_t lacking = gpu_count() < session.world().local_size ? 1 : 0;
    session.host().all_reduce_max("GPUs", std::span(&lacking, 1));
    if (lacking != 0) {
      if (session.world().is_first()) std::printf("not run: no GPU for each of %d ranks\n", session.world().world_size);
      session.host().barrier("not run");
      if (session.uses_mpi()) end_job(static_cast<ExitCode>(test::kNotRun));
      return test::kNotRun;
    }
    std::int64_t failed = RUN_ALL_TESTS();
    session.host().all_reduce_max("failed tests", std::span(&failed, 1));
    if (failed != 0) end_job(ExitCode::kInternal);
    session.finish();
    return 0;
  } catch (const Error& error) {
    if (report_failure(error.code())) std::fprintf(stderr, "error: %s\n", error.what());
    end_job(error.code());
  }
}
