// The optimizers beside AdamW, in LibTorch's operations, and the choice by name.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>
#include <string_view>
#include <utility>

#include <ATen/ops/mean.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>

#include "core/error.h"
#include "trainer/optim/optimizer.h"
#include "trainer/optim/optimizer_state.h"

namespace dtrain {
namespace {

// One parameter at a time: update() gets the scaled gradient, which it may change.
class TensorOptimizer : public Optimizer {
 public:
  explicit TensorOptimizer(std::vector<NamedParameter> parameters, double weight_decay) : weight_decay_(weight_decay) {
    check_parameters(parameters);
    for (NamedParameter& parameter : parameters) {
      slots_.push_back({std::move(parameter), {}, at::zeros({}, at::TensorOptions().dtype(at::kLong))});
    }
  }

  void step(std::span<const double> learning_rates, double gradient_scale) override {
    const c10::NoGradGuard no_gradient;
    for (Slot& slot : slots_) {
      if (!has_gradient(slot.parameter.value)) continue;
      slot.updates.add_(1);
      at::Tensor gradient = slot.parameter.value.grad().to(at::kFloat).mul(gradient_scale);
      update(slot, gradient, learning_rate_of(slot.parameter, learning_rates),
             weight_decay_of(slot.parameter, weight_decay_));
    }
  }

  [[nodiscard]] NamedTensors state() const override {
    NamedTensors tensors;
    for (const Slot& slot : slots_) {
      for (const auto& [name, tensor] : slot.tensors) tensors.emplace_back(slot.parameter.name + "." + name, tensor);
      tensors.emplace_back(slot.parameter.name + ".step", slot.updates);
    }
    return tensors;
  }

  void load_state(const SafetensorsFile& file) override { load_optimizer_state(state(), file); }

 protected:
  struct Slot {
    NamedParameter parameter;
    std::map<std::string, at::Tensor> tensors;  // the state, by name
    at::Tensor updates;                         // int64 scalar on the CPU
    [[nodiscard]] std::int64_t count() const { return *updates.const_data_ptr<std::int64_t>(); }
  };

  void add_state(const std::string& name) {
    for (Slot& slot : slots_) slot.tensors[name] = at::zeros_like(slot.parameter.value).requires_grad_(false);
  }
  std::vector<Slot>& slots() { return slots_; }

 private:
  virtual void update(Slot& slot, at::Tensor& gradient, double learning_rate, double weight_decay) = 0;

  double weight_decay_;
  std::vector<Slot> slots_;
};

// torch.optim.SGD
class Sgd final : public TensorOptimizer {
 public:
  struct Options {
    double momentum = 0;
    double dampening = 0;
    bool nesterov = false;
  };
  Sgd(std::vector<NamedParameter> parameters, double weight_decay, const Options& options)
      : TensorOptimizer(std::move(parameters), weight_decay), options_(options) {
    if (options_.momentum != 0) add_state("momentum_buffer");
  }

 private:
  void update(Slot& slot, at::Tensor& gradient, double learning_rate, double weight_decay) override {
    at::Tensor& value = slot.parameter.value;
    if (weight_decay != 0) gradient.add_(value, weight_decay);
    if (options_.momentum != 0) {
      at::Tensor& buffer = slot.tensors["momentum_buffer"];
      if (slot.count() == 1) {
        buffer.copy_(gradient);
      } else {
        buffer.mul_(options_.momentum).add_(gradient, 1 - options_.dampening);
      }
      if (options_.nesterov) {
        gradient.add_(buffer, options_.momentum);
      } else {
        gradient = buffer;
      }
    }
    value.add_(gradient, -learning_rate);
  }

  Options options_;
};

// torch.optim.Adagrad
class Adagrad final : public TensorOptimizer {
 public:
  struct Options {
    double lr_decay = 0;
    double eps = 1e-10;
  };
  Adagrad(std::vector<NamedParameter> parameters, double weight_decay, const Options& options)
      : TensorOptimizer(std::move(parameters), weight_decay), options_(options) {
    add_state("sum");
  }

 private:
  void update(Slot& slot, at::Tensor& gradient, double learning_rate, double weight_decay) override {
    at::Tensor& value = slot.parameter.value;
    if (weight_decay != 0) gradient.add_(value, weight_decay);
    at::Tensor& sum = slot.tensors["sum"];
    sum.addcmul_(gradient, gradient);
    const double rate = learning_rate / (1 + static_cast<double>(slot.count() - 1) * options_.lr_decay);
    value.addcdiv_(gradient, sum.sqrt().add_(options_.eps), -rate);
  }

  Options options_;
};

// torch.optim.RMSprop
class RmsProp final : public TensorOptimizer {
 public:
  struct Options {
    double alpha = 0.99;
    double eps = 1e-8;
    double momentum = 0;
    bool centered = false;
  };
  RmsProp(std::vector<NamedParameter> parameters, double weight_decay, const Options& options)
      : TensorOptimizer(std::move(parameters), weight_decay), options_(options) {
    add_state("square_avg");
    if (options_.momentum != 0) add_state("momentum_buffer");
    if (options_.centered) add_state("grad_avg");
  }

 private:
  void update(Slot& slot, at::Tensor& gradient, double learning_rate, double weight_decay) override {
    at::Tensor& value = slot.parameter.value;
    if (weight_decay != 0) gradient.add_(value, weight_decay);
    at::Tensor& square = slot.tensors["square_avg"];
    square.mul_(options_.alpha).addcmul_(gradient, gradient, 1 - options_.alpha);
    at::Tensor average;
    if (options_.centered) {
      at::Tensor& mean = slot.tensors["grad_avg"];
      mean.lerp_(gradient, 1 - options_.alpha);
      average = square.addcmul(mean, mean, -1).sqrt_();
    } else {
      average = square.sqrt();
    }
    average.add_(options_.eps);
    if (options_.momentum == 0) {
      value.addcdiv_(gradient, average, -learning_rate);
      return;
    }
    at::Tensor& buffer = slot.tensors["momentum_buffer"];
    buffer.mul_(options_.momentum).addcdiv_(gradient, average);
    value.add_(buffer, -learning_rate);
  }

  Options options_;
};

// Chen et al. 2023, Symbolic Discovery of Optimization Algorithms, algorithm 2.
class Lion final : public TensorOptimizer {
 public:
  Lion(std::vector<NamedParameter> parameters, double weight_decay, double beta1, double beta2)
      : TensorOptimizer(std::move(parameters), weight_decay), beta1_(beta1), beta2_(beta2) {
    add_state("exp_avg");
  }

 private:
  void update(Slot& slot, at::Tensor& gradient, double learning_rate, double weight_decay) override {
    at::Tensor& value = slot.parameter.value;
    at::Tensor& average = slot.tensors["exp_avg"];
    const at::Tensor direction = average.mul(beta1_).add_(gradient, 1 - beta1_).sign_();
    value.mul_(1 - learning_rate * weight_decay).add_(direction, -learning_rate);
    average.mul_(beta2_).add_(gradient, 1 - beta2_);
  }

  double beta1_;
  double beta2_;
};

// Shazeer & Stern 2018 as transformers.Adafactor with what its Trainer sets: the given learning rate, no momentum.
class Adafactor final : public TensorOptimizer {
 public:
  Adafactor(std::vector<NamedParameter> parameters, double weight_decay)
      : TensorOptimizer(std::move(parameters), weight_decay) {
    for (Slot& slot : slots()) {
      const at::Tensor& value = slot.parameter.value;
      const at::IntArrayRef sizes = value.sizes();
      const auto zeros = [&](at::IntArrayRef shape) { return at::zeros(shape, value.options().requires_grad(false)); };
      if (value.dim() < 2) {
        slot.tensors["exp_avg_sq"] = zeros(sizes);
        continue;
      }
      std::vector<std::int64_t> columns(sizes.begin(), sizes.end() - 2);
      columns.push_back(sizes.back());
      slot.tensors["exp_avg_sq_row"] = zeros(sizes.slice(0, sizes.size() - 1));
      slot.tensors["exp_avg_sq_col"] = zeros(columns);
    }
  }

 private:
  static constexpr double kSquareEpsilon = 1e-30;
  static constexpr double kClipThreshold = 1.0;
  static constexpr double kDecayRate = -0.8;

  void update(Slot& slot, at::Tensor& gradient, double learning_rate, double weight_decay) override {
    at::Tensor& value = slot.parameter.value;
    const double beta = 1 - std::pow(static_cast<double>(slot.count()), kDecayRate);
    const at::Tensor squares = gradient.square().add_(kSquareEpsilon);
    at::Tensor change;
    if (value.dim() < 2) {
      at::Tensor& average = slot.tensors["exp_avg_sq"];
      average.mul_(beta).add_(squares, 1 - beta);
      change = average.rsqrt().mul_(gradient);
    } else {
      at::Tensor& rows = slot.tensors["exp_avg_sq_row"];
      at::Tensor& columns = slot.tensors["exp_avg_sq_col"];
      rows.mul_(beta).add_(squares.mean(-1), 1 - beta);
      columns.mul_(beta).add_(squares.mean(-2), 1 - beta);
      change = rows.div(rows.mean(-1, true)).rsqrt_().unsqueeze(-1).mul(columns.unsqueeze(-2).rsqrt()).mul_(gradient);
    }
    const double root = change.norm().item<double>() / std::sqrt(static_cast<double>(change.numel()));
    // NaN stays NaN.
    change.div_(root > kClipThreshold || std::isnan(root) ? root / kClipThreshold : 1.0).mul_(learning_rate);
    if (weight_decay != 0) value.add_(value, -weight_decay * learning_rate);
    value.sub_(change);
  }
};

std::string_view trimmed(std::string_view text) {
  const std::size_t first = text.find_first_not_of(' ');
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(' ') - first + 1);
}

// optim_args: "momentum=0.9,nesterov=true".
class Arguments {
 public:
  Arguments(const std::string& optimizer, std::string_view text, const std::vector<std::string_view>& known) {
    while (!text.empty()) {
      const std::string_view part = text.substr(0, text.find(','));
      text.remove_prefix(std::min(text.size(), part.size() + 1));
      if (trimmed(part).empty()) continue;
      const std::size_t equal = part.find('=');
      const std::string key(trimmed(part.substr(0, equal)));
      if (equal == std::string_view::npos || std::find(known.begin(), known.end(), key) == known.end()) {
        const std::string nearest = nearest_name(key, known);
        std::string hint = known.empty() ? fmt::format("\"{}\" takes no arguments", optimizer)
                                         : fmt::format("known: {}", fmt::join(known, ", "));
        if (!nearest.empty() && equal != std::string_view::npos) hint = fmt::format("did you mean \"{}\"?", nearest);
        throw usage_error(fmt::format("training.optim_args: \"{}\" for \"{}\"", part, optimizer), hint);
      }
      values_[key] = std::string(trimmed(part.substr(equal + 1)));
    }
  }

  double number(const std::string& key, double otherwise) const {
    const auto found = values_.find(key);
    if (found == values_.end()) return otherwise;
    char* end = nullptr;
    const double value = std::strtod(found->second.c_str(), &end);
    if (found->second.empty() || *end != '\0' || !std::isfinite(value) || value < 0) {
      throw usage_error(
          fmt::format("training.optim_args: {} = \"{}\" is not a number of at least 0", key, found->second),
          "write it like momentum=0.9");
    }
    return value;
  }
  bool flag(const std::string& key) const {
    const auto found = values_.find(key);
    if (found == values_.end()) return false;
    for (const char* yes : {"true", "True", "1", "yes"}) {
      if (found->second == yes) return true;
    }
    for (const char* no : {"false", "False", "0", "no"}) {
      if (found->second == no) return false;
    }
    throw usage_error(fmt::format("training.optim_args: {} = \"{}\"", key, found->second), "write true or false");
  }

 private:
  std::map<std::string, std::string> values_;
};

}  // namespace

std::int64_t Optimizer::state_bytes() const {
  std::int64_t bytes = 0;
  for (const auto& [name, tensor] : state()) bytes += static_cast<std::int64_t>(tensor.nbytes());
  return bytes;
}

bool may_be_cut(const OptimizerOptions& options) { return options.name.starts_with("adamw"); }

std::unique_ptr<Optimizer> make_optimizer(std::vector<NamedParameter> parameters, const OptimizerOptions& options) {
  const auto arguments = [&](const std::vector<std::string_view>& known) {
    return Arguments(options.name, options.arguments, known);
  };
  if (options.name == "sgd") {
    const Arguments given = arguments({"momentum", "dampening", "nesterov"});
    const Sgd::Options sgd{given.number("momentum", 0), given.number("dampening", 0), given.flag("nesterov")};
    if (sgd.nesterov && (sgd.momentum == 0 || sgd.dampening != 0)) {
      throw usage_error("training.optim_args: nesterov without momentum, or with dampening",
                        "set momentum=0.9 and no dampening");
    }
    return std::make_unique<Sgd>(std::move(parameters), options.adamw.weight_decay, sgd);
  }
  if (options.name == "adagrad") {
    const Arguments given = arguments({"lr_decay", "eps"});
    const Adagrad::Options adagrad{given.number("lr_decay", 0), given.number("eps", 1e-10)};
    return std::make_unique<Adagrad>(std::move(parameters), options.adamw.weight_decay, adagrad);
  }
  if (options.name == "rmsprop") {
    const Arguments given = arguments({"momentum", "alpha", "eps", "centered"});
    const RmsProp::Options rmsprop{given.number("alpha", 0.99), given.number("eps", 1e-8), given.number("momentum", 0),
                                   given.flag("centered")};
    return std::make_unique<RmsProp>(std::move(parameters), options.adamw.weight_decay, rmsprop);
  }
  (void)arguments({});
  if (options.name == "adafactor") {
    return std::make_unique<Adafactor>(std::move(parameters), options.adamw.weight_decay);
  }
  if (options.name == "lion" || options.name == "lion_32bit") {
    return std::make_unique<Lion>(std::move(parameters), options.adamw.weight_decay, options.adamw.beta1,
                                  options.adamw.beta2);
  }
  DTRAIN_CHECK(options.name == "adamw_torch" || options.name == "adamw_torch_fused", "optimizer {}", options.name);
  return make_adamw(std::move(parameters), options.adamw);
}

}  // namespace dtrain
