// A training loop of one's own over any number of ranks, with dtrain::dist alone: a plain torch::nn::Module, LibTorch's
// own optimizer, and a Reducer where PyTorch has DistributedDataParallel.
//
//   ./bare_loop            one process
//   mpirun -np 4 ./bare_loop
//
// Both print the same losses: every step takes the same 64 examples, however many ranks share them.
#include <cmath>
#include <cstdio>
#include <vector>

#include <ATen/Context.h>
#include <ATen/ops/mse_loss.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/sin.h>
#include <ATen/ops/tanh.h>
#include <c10/core/GradMode.h>
#include <dist/make_communicator.h>
#include <dist/reducer.h>
#include <dist/run_job.h>
#include <torch/nn/modules/linear.h>
#include <torch/optim/sgd.h>

namespace {

struct Net : torch::nn::Module {
  Net()
      : hidden(register_module("hidden", torch::nn::Linear(2, 32))),
        out(register_module("out", torch::nn::Linear(32, 1))) {}
  at::Tensor forward(const at::Tensor& x) { return out(at::tanh(hidden(x))); }

  torch::nn::Linear hidden;
  torch::nn::Linear out;
};

constexpr std::int64_t kExamples = 1024;
constexpr std::int64_t kBatch = 64;  // of all ranks together
constexpr int kEpochs = 20;

dtrain::ExitCode train(dtrain::MpiSession& session) {
  const dtrain::World& world = session.world();
  if (kBatch % world.world_size != 0) throw dtrain::usage_error("the number of ranks must divide 64");
  const auto communicator = dtrain::make_communicator(world, session.host(), at::kCPU);

  at::manual_seed(1);  // the same data and the same start weights on every rank
  const at::Tensor inputs = at::rand({kExamples, 2}) * 4 - 2;
  const at::Tensor targets = at::sin(inputs.select(1, 0) * inputs.select(1, 1)).unsqueeze(1);
  Net net;
  // Where ranks draw other weights, rank 0's are sent to all.
  for (const at::Tensor& parameter : net.parameters())
    communicator->broadcast(parameter.detach(), 0, "weights")->wait();

  dtrain::Reducer reducer(net.parameters(), communicator, {});
  torch::optim::SGD optimizer(net.parameters(), torch::optim::SGDOptions(0.2).momentum(0.9));
  const std::int64_t share = kBatch / world.world_size;
  for (int epoch = 0; epoch < kEpochs; ++epoch) {
    double total = 0;
    for (std::int64_t first = world.rank * share; first < kExamples; first += kBatch) {
      reducer.begin_step();
      const at::Tensor loss = at::mse_loss(net.forward(inputs.narrow(0, first, share)), targets.narrow(0, first, share),
                                           at::Reduction::Sum);
      (loss / static_cast<double>(kBatch)).backward();  // all-reduces start while backward runs
      reducer.finish();                                 // grad() of every parameter is the sum over ranks
      optimizer.step();
      total += loss.item<double>();
    }
    session.host().all_reduce_sum("loss", std::span(&total, 1));
    if (world.is_first()) std::printf("epoch %d: loss %.6f\n", epoch + 1, total / static_cast<double>(kExamples));
  }
  return dtrain::ExitCode::kDone;
}

}  // namespace

int main() { return dtrain::run_job(train); }
