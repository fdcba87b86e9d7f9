// A regression with a torch::nn::Module that was written without dtrain, an optimizer and a schedule of one's own, and
// tensors as data.
//
//   ./regression regression.toml
//   mpirun -np 4 ./regression regression.toml --set training.per_device_train_batch_size=16
#include <algorithm>
#include <cmath>
#include <memory>
#include <numbers>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ops/cos.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>
#include <launcher/run_trainer.h>
#include <torch/nn/modules/linear.h>
#include <trainer/optim/optimizer_state.h>

namespace {

// As it may lie around: it knows nothing of dtrain.
struct Net : torch::nn::Module {
  Net()
      : hidden(register_module("hidden", torch::nn::Linear(1, 64))),
        out(register_module("out", torch::nn::Linear(64, 1))) {}
  at::Tensor forward(const at::Tensor& x) { return out(at::tanh(hidden(x))); }

  torch::nn::Linear hidden;
  torch::nn::Linear out;
};

// What makes a Model of it: which tensors of a batch go in, and the loss.
class Regression final : public dtrain::Model {
 public:
  Regression() : net_(register_module("net", std::make_shared<Net>())) {}

  [[nodiscard]] dtrain::ModelOutput forward(const dtrain::Batch& batch) override {
    const at::Tensor value = net_->forward(batch["x"]);
    const at::Tensor losses = (value - batch["labels"]).square().squeeze(1);
    return dtrain::output_of(losses, value, batch);
  }
  [[nodiscard]] double at(double x) {
    return net_->forward(at::scalar_tensor(x, at::kFloat).reshape({1, 1})).item<double>();
  }

 private:
  std::shared_ptr<Net> net_;
};

// cos(x) on [-pi, pi]; the stacking collator makes [batch, 1] of "x" and of "labels".
class Cosine final : public dtrain::Dataset {
 public:
  explicit Cosine(std::int64_t size)
      : x_(at::linspace(-std::numbers::pi, std::numbers::pi, size).unsqueeze(1)), y_(at::cos(x_)) {}

  [[nodiscard]] std::int64_t size() const override { return x_.size(0); }
  [[nodiscard]] std::string digest() const override { return fmt::format("cosine {}", size()); }
  [[nodiscard]] dtrain::Example get(std::int64_t index) const override {
    dtrain::Example example;
    example.tensors = {{"x", x_[index]}, {"labels", y_[index]}};
    return example;
  }

 private:
  at::Tensor x_;
  at::Tensor y_;
};

// Gradient descent with Nesterov's momentum.
class Nesterov final : public dtrain::Optimizer {
 public:
  Nesterov(std::vector<dtrain::NamedParameter> parameters, double momentum)
      : parameters_(std::move(parameters)), momentum_(momentum) {
    for (const dtrain::NamedParameter& each : parameters_) velocities_.push_back(at::zeros_like(each.value));
  }

  void step(std::span<const double> learning_rates, double gradient_scale) override {
    const at::NoGradGuard no_gradient;
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
      const dtrain::NamedParameter& parameter = parameters_[i];
      const at::Tensor gradient = parameter.value.grad() * gradient_scale;
      velocities_[i].mul_(momentum_).add_(gradient);
      parameter.value.sub_(velocities_[i] * momentum_ + gradient, learning_rates[parameter.group]);
    }
  }
  // What a checkpoint must hold for a run to go on exactly.
  [[nodiscard]] dtrain::NamedTensors state() const override {
    dtrain::NamedTensors state;
    for (std::size_t i = 0; i < parameters_.size(); ++i)
      state.emplace_back(parameters_[i].name + ".velocity", velocities_[i]);
    return state;
  }
  void load_state(const dtrain::SafetensorsFile& file) override { dtrain::load_optimizer_state(state(), file); }

 private:
  std::vector<dtrain::NamedParameter> parameters_;
  double momentum_;
  std::vector<at::Tensor> velocities_;
};

dtrain::TrainerParts make_parts(const dtrain::Job& /*job*/) {
  dtrain::TrainerParts parts;
  parts.model_init = [] { return std::make_shared<Regression>(); };
  parts.train_data = std::make_shared<Cosine>(512);
  parts.eval_data = std::make_shared<Cosine>(101);
  parts.metrics.push_back(dtrain::make_metric("mae", {.num_labels = 1}));
  parts.make_optimizer = [](std::vector<dtrain::NamedParameter> parameters) {
    return std::make_unique<Nesterov>(std::move(parameters), 0.9);
  };
  // Up for a tenth of the steps, then down along a quarter of a circle.
  parts.make_schedule = [](std::int64_t steps) {
    return [steps](std::int64_t finished) {
      const double done = static_cast<double>(finished) / static_cast<double>(steps);
      return done < 0.1 ? 10 * done : std::sqrt(1 - std::min(done, 1.0) * done);
    };
  };
  return parts;
}

void show(dtrain::Trainer& trainer, const dtrain::TrainOutcome& outcome) {
  const at::NoGradGuard no_gradient;
  if (!trainer.state().is_world_process_zero) return;
  fmt::print("after {} steps cos(1) is about {:.3f}\n", outcome.global_step,
             dynamic_cast<Regression&>(trainer.model()).at(1));
}

}  // namespace

int main(int argc, char** argv) { return dtrain::run_trainer(argc, argv, make_parts, show); }
