// AdamW, gradient norm, decay groups and loss scaling against torch and transformers (tests/golden/record_optim.py).
#include <cmath>
#include <limits>

#include <ATen/Parallel.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/max.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/sub.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "core/json.h"
#include "tests/support/files.h"
#include "tests/support/temp_folder.h"
#include "trainer/optim/grad_scaler.h"
#include "trainer/optim/optimizer.h"

namespace dtrain {
namespace {

const Json& golden() {
  static const Json json = read_json_file(test::test_data("golden/optim.json"));
  return json;
}

at::Tensor tensor_of(const Json& values, const Json& shape) {
  return at::tensor(values.get<std::vector<float>>()).view(shape.get<std::vector<std::int64_t>>());
}

NamedParameter parameter_of(const Json& json) {
  at::Tensor value = tensor_of(json.at("start"), json.at("shape"));
  value.requires_grad_(true);
  return {json.at("name").get<std::string>(), value, json.at("decay").get<bool>()};
}

void set_gradients(std::vector<NamedParameter>& parameters, const Json& gradients) {
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    at::Tensor& value = parameters[i].value;
    value.mutable_grad() =
        gradients[i].is_null() ? at::Tensor() : at::tensor(gradients[i].get<std::vector<float>>()).view(value.sizes());
  }
}

// |a - b| <= 1e-6 |b|, or one unit in the last place of the values (about 0.1) that b is the difference of.
void expect_close(const at::Tensor& actual, const Json& expected, const std::string& what) {
  const at::Tensor flat = actual.detach().flatten();
  const auto wanted = expected.get<std::vector<float>>();
  ASSERT_EQ(static_cast<std::size_t>(flat.numel()), wanted.size()) << what;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    EXPECT_NEAR(flat.const_data_ptr<float>()[i], wanted[i], 1e-6 * std::abs(wanted[i]) + 8e-9)
        << what << "[" << i << "]";
  }
}

AdamWOptions golden_options() {
  const Json& options = golden().at("adamw").at("options");
  return {.beta1 = options.at("beta1").get<double>(),
          .beta2 = options.at("beta2").get<double>(),
          .epsilon = options.at("epsilon").get<double>(),
          .weight_decay = options.at("weight_decay").get<double>()};
}

std::vector<NamedParameter> golden_parameters() {
  std::vector<NamedParameter> parameters;
  for (const Json& each : golden().at("adamw").at("parameters")) parameters.push_back(parameter_of(each));
  return parameters;
}

TEST(AdamW, FollowsTorchFor20StepsWithClippingAndWarmup) {
  const Json& run = golden().at("adamw");
  std::vector<NamedParameter> parameters = golden_parameters();
  const auto optimizer = make_adamw(parameters, golden_options());
  int step = 0;
  for (const Json& each : run.at("steps")) {
    set_gradients(parameters, each.at("gradients"));
    const double norm = gradient_norm(parameters);
    EXPECT_NEAR(norm, each.at("grad_norm").get<double>(), 1e-6 * norm);
    optimizer->step(each.at("learning_rate").get<double>(), clip_coefficient(norm, run.at("max_norm").get<double>()));
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      expect_close(parameters[i].value, each.at("values")[i],
                   parameters[i].name + " after step " + std::to_string(step));
    }
    ++step;
  }
  const NamedTensors state = optimizer->state();
  ASSERT_EQ(state.size(), 9U);
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const Json& end = run.at("end")[i];
    EXPECT_EQ(state[3 * i].first, parameters[i].name + ".exp_avg");
    expect_close(state[3 * i].second, end.at("exp_avg"), "exp_avg");
    expect_close(state[3 * i + 1].second, end.at("exp_avg_sq"), "exp_avg_sq");
    EXPECT_EQ(state[3 * i + 2].second.item<std::int64_t>(), end.at("step").get<std::int64_t>());
  }
}

std::vector<NamedParameter> other_parameters() {
  std::vector<NamedParameter> parameters;
  for (const Json& each : golden().at("other_optimizers").at("parameters")) parameters.push_back(parameter_of(each));
  return parameters;
}

OptimizerOptions other_options(const std::string& name, const std::string& arguments) {
  return {.name = name,
          .arguments = arguments,
          .adamw = {.weight_decay = golden().at("other_optimizers").at("weight_decay").get<double>()}};
}

// Gradients four times too large, which the scale takes back: as clipping does.
void other_step(std::vector<NamedParameter>& parameters, Optimizer& optimizer, std::size_t step) {
  const Json& run = golden().at("other_optimizers");
  set_gradients(parameters, run.at("gradients")[step]);
  for (NamedParameter& parameter : parameters) parameter.value.mutable_grad().mul_(4);
  optimizer.step(run.at("rates")[step].get<double>(), 0.25);
}

TEST(Optimizers, FollowTorchAndTransformersFor20Steps) {
  for (const Json& run : golden().at("other_optimizers").at("runs")) {
    std::vector<NamedParameter> parameters = other_parameters();
    const auto optimizer = make_optimizer(
        parameters, other_options(run.at("name").get<std::string>(), run.at("arguments").get<std::string>()));
    std::size_t step = 0;
    for (const Json& recorded : run.at("values")) {
      while (step <= recorded[0].get<std::size_t>()) other_step(parameters, *optimizer, step++);
      for (std::size_t i = 0; i < parameters.size(); ++i) {
        expect_close(parameters[i].value, recorded[1][i],
                     fmt::format("{} {} {} step {}", run.at("name").get<std::string>(),
                                 run.at("arguments").get<std::string>(), parameters[i].name, step - 1));
      }
    }
  }
}

// Algorithm 2 of the paper, written out in double.
TEST(Optimizers, LionFollowsItsPaper) {
  const Json& run = golden().at("other_optimizers");
  std::vector<NamedParameter> parameters = other_parameters();
  const auto optimizer = make_optimizer(parameters, other_options("lion", ""));
  std::vector<at::Tensor> values;
  std::vector<at::Tensor> averages;
  for (const NamedParameter& parameter : parameters) {
    values.push_back(parameter.value.detach().to(at::kDouble).clone());
    averages.push_back(at::zeros_like(values.back()));
  }
  for (std::size_t step = 0; step < 20; ++step) {
    other_step(parameters, *optimizer, step);
    const double rate = run.at("rates")[step].get<double>();
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      const at::Tensor gradient = parameters[i].value.grad().to(at::kDouble).div(4);
      const at::Tensor direction = averages[i].mul(0.9).add(gradient, 0.1).sign();
      const double decay = parameters[i].decay ? run.at("weight_decay").get<double>() : 0;
      values[i] = values[i].sub(direction.add(values[i], decay), rate);
      averages[i] = averages[i].mul(0.999).add(gradient, 0.001);
      EXPECT_LT(parameters[i].value.detach().to(at::kDouble).sub(values[i]).abs().max().item<double>(), 1e-6) << step;
    }
  }
}

TEST(Optimizers, SavedStateContinuesBitForBit) {
  const std::vector<std::pair<std::string, std::string>> all = {{"sgd", "momentum=0.9"},
                                                                {"adagrad", ""},
                                                                {"rmsprop", "momentum=0.5,centered=true"},
                                                                {"adafactor", ""},
                                                                {"lion", ""}};
  for (const auto& [name, arguments] : all) {
    std::vector<NamedParameter> whole = other_parameters();
    std::vector<NamedParameter> resumed = other_parameters();
    const auto whole_optimizer = make_optimizer(whole, other_options(name, arguments));
    const auto first_half = make_optimizer(resumed, other_options(name, arguments));
    const auto second_half = make_optimizer(resumed, other_options(name, arguments));
    const test::TempFolder folder;
    const auto file = folder.path() / "optimizer.safetensors";
    for (std::size_t step = 0; step < 20; ++step) {
      if (step == 7) {
        write_safetensors(file, first_half->state(), {});
        second_half->load_state(SafetensorsFile(file));
      }
      other_step(whole, *whole_optimizer, step);
      other_step(resumed, step < 7 ? *first_half : *second_half, step);
    }
    for (std::size_t i = 0; i < whole.size(); ++i) {
      EXPECT_TRUE(at::equal(whole[i].value, resumed[i].value)) << name << " " << whole[i].name;
    }
    EXPECT_THROW(
        make_optimizer(other_parameters(), other_options("adamw_torch", ""))->load_state(SafetensorsFile(file)), Error);
  }
}

TEST(Optimizers, WrongArgumentsAreErrorsThatSayWhatIsRight) {
  const auto message = [](const std::string& name, const std::string& arguments) {
    try {
      (void)make_optimizer(other_parameters(), other_options(name, arguments));
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kUsage);
      return std::string(error.what()) + " | " + error.hint();
    }
    return std::string("no error");
  };
  EXPECT_EQ(message("sgd", "momentun=0.9"),
            "training.optim_args: \"momentun=0.9\" for \"sgd\" | did you mean \"momentum\"?");
  EXPECT_THAT(message("sgd", "momentum=much"), testing::HasSubstr("is not a number"));
  EXPECT_THAT(message("sgd", "momentum"), testing::HasSubstr("known: momentum, dampening, nesterov"));
  EXPECT_THAT(message("sgd", "nesterov=true"), testing::HasSubstr("nesterov without momentum"));
  EXPECT_THAT(message("rmsprop", "centered=maybe"), testing::HasSubstr("true or false"));
  EXPECT_THAT(message("adamw_torch", "momentum=1"), testing::HasSubstr("takes no arguments"));
  EXPECT_EQ(message("rmsprop", " alpha = 0.9 , centered = true, "), "no error");
}

TEST(AdamW, SavedStateContinuesBitForBit) {
  const Json& steps = golden().at("adamw").at("steps");
  std::vector<NamedParameter> whole = golden_parameters();
  const auto whole_optimizer = make_adamw(whole, golden_options());
  std::vector<NamedParameter> resumed = golden_parameters();
  const auto first_half = make_adamw(resumed, golden_options());
  const auto second_half = make_adamw(resumed, golden_options());
  const test::TempFolder folder;
  const auto file = folder.path() / "optimizer.safetensors";
  for (std::size_t i = 0; i < steps.size(); ++i) {
    const auto rate = steps[i].at("learning_rate").get<double>();
    set_gradients(whole, steps[i].at("gradients"));
    set_gradients(resumed, steps[i].at("gradients"));
    if (i == 7) {
      write_safetensors(file, first_half->state(), {});
      second_half->load_state(SafetensorsFile(file));
    }
    whole_optimizer->step(rate, 0.5);
    (i < 7 ? first_half : second_half)->step(rate, 0.5);
  }
  for (std::size_t i = 0; i < whole.size(); ++i)
    EXPECT_TRUE(at::equal(whole[i].value, resumed[i].value)) << whole[i].name;
}

TEST(AdamW, StateOfAnotherModelIsAnError) {
  std::vector<NamedParameter> parameters = golden_parameters();
  const test::TempFolder folder;
  const auto file = folder.path() / "optimizer.safetensors";
  const auto error_of = [&](NamedTensors tensors) {
    write_safetensors(file, tensors, {});
    const auto optimizer = make_adamw(parameters, {});
    try {
      optimizer->load_state(SafetensorsFile(file));
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kData);
      for (const auto& [name, tensor] : optimizer->state()) EXPECT_EQ(at::max(tensor).item<double>(), 0.0) << name;
      return std::string(error.what());
    }
    return std::string("no error");
  };
  NamedTensors tensors;
  for (const auto& [name, tensor] : make_adamw(parameters, {})->state())
    tensors.emplace_back(name, at::ones_like(tensor));
  EXPECT_EQ(error_of(tensors), "no error");
  NamedTensors missing = tensors;
  missing.pop_back();
  EXPECT_EQ(error_of(missing), "optimizer.safetensors: no tensor \"norm.weight.step\"");
  NamedTensors reshaped = tensors;
  reshaped[3].second = at::ones({6});
  EXPECT_NE(error_of(reshaped).find("\"dense.bias.exp_avg\" has another shape"), std::string::npos);
  NamedTensors negative = tensors;
  negative[2].second = at::full({}, -1, at::kLong);
  EXPECT_NE(error_of(negative).find("\"dense.weight.step\" is negative"), std::string::npos);
}

TEST(AdamW, LeavesFrozenParametersAlone) {
  at::Tensor frozen = at::ones({3});
  at::Tensor without_gradient = at::ones({3});
  without_gradient.requires_grad_(true);
  const auto optimizer =
      make_adamw({{"frozen", frozen, true}, {"idle", without_gradient, true}}, {.weight_decay = 0.5});
  optimizer->step(0.1, 1.0);
  EXPECT_TRUE(at::equal(frozen, at::ones({3})));
  EXPECT_TRUE(at::equal(without_gradient.detach(), at::ones({3})));
}

struct Big {
  std::vector<NamedParameter> parameters;
  Big() {
    // Larger than several pieces, with ragged ends, and gradients that are views into one flat buffer as the reducer's
    // are.
    const std::vector<std::int64_t> sizes = {100003, 7, 32768, 65537};
    const at::Tensor bucket = at::randn({100003 + 7 + 32768 + 65537});
    std::int64_t offset = 0;
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      at::Tensor value = at::randn({sizes[i]});
      value.requires_grad_(true);
      value.mutable_grad() = bucket.narrow(0, offset, sizes[i]);
      offset += sizes[i];
      parameters.push_back({"p" + std::to_string(i), value, i % 2 == 0});
    }
  }
};

TEST(AdamW, LargeParametersEqualTheFusedKernelOfTorch) {
  Big big;
  const AdamWOptions options{.weight_decay = 0.01};
  std::vector<at::Tensor> values, gradients, averages, squares;
  for (const NamedParameter& each : big.parameters) {
    values.push_back(each.value.detach().clone());
    gradients.push_back(each.value.grad().clone());
    averages.push_back(at::zeros_like(values.back()));
    squares.push_back(at::zeros_like(values.back()));
  }
  const auto optimizer = make_adamw(big.parameters, options);
  for (int step = 1; step <= 3; ++step) {
    optimizer->step(1e-3, 1.0);
    for (std::size_t i = 0; i < values.size(); ++i) {
      at::_fused_adamw_({values[i]}, {gradients[i]}, {averages[i]}, {squares[i]}, {},
                        {at::full({}, static_cast<float>(step))}, 1e-3, 0.9, 0.999,
                        big.parameters[i].decay ? 0.01 : 0.0, 1e-8, false, false);
    }
  }
  for (std::size_t i = 0; i < values.size(); ++i) {
    const at::Tensor difference = at::sub(big.parameters[i].value.detach(), values[i]).abs();
    EXPECT_LT(difference.max().item<double>(), 1e-6) << i;
    EXPECT_LT(at::sub(optimizer->state()[3 * i].second, averages[i]).abs().max().item<double>(), 1e-6) << i;
  }
}

TEST(AdamW, ResultDoesNotDependOnTheNumberOfThreads) {
  Big one;
  Big other;
  for (std::size_t i = 0; i < one.parameters.size(); ++i) {
    const c10::NoGradGuard no_gradient;
    other.parameters[i].value.copy_(one.parameters[i].value);
    other.parameters[i].value.mutable_grad() = one.parameters[i].value.grad();
  }
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const double norm_one = gradient_norm(one.parameters);
  make_adamw(one.parameters, {})->step(1e-3, 0.7);
  at::set_num_threads(3);
  const double norm_other = gradient_norm(other.parameters);
  make_adamw(other.parameters, {})->step(1e-3, 0.7);
  at::set_num_threads(threads);
  EXPECT_EQ(norm_one, norm_other);
  for (std::size_t i = 0; i < one.parameters.size(); ++i) {
    EXPECT_TRUE(at::equal(one.parameters[i].value, other.parameters[i].value)) << i;
  }
}

TEST(GradientNorm, EqualsTorchAndSeesWhatIsNotFinite) {
  Big big;
  std::vector<at::Tensor> all;
  for (const NamedParameter& each : big.parameters) all.push_back(each.value.grad().flatten());
  const double expected = at::linalg_vector_norm(at::cat(all).to(at::kDouble)).item<double>();
  EXPECT_NEAR(gradient_norm(big.parameters), expected, 1e-6 * expected);
  EXPECT_EQ(gradient_norm({}), 0.0);
  float* last = big.parameters[3].value.grad().mutable_data_ptr<float>() + 65536;
  *last = std::numeric_limits<float>::infinity();
  EXPECT_TRUE(std::isinf(gradient_norm(big.parameters)));
  *last = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(std::isnan(gradient_norm(big.parameters)));
}

TEST(ClipCoefficient, FollowsItsFormula) {
  EXPECT_EQ(clip_coefficient(0.5, 1.0), 1.0);
  EXPECT_DOUBLE_EQ(clip_coefficient(4.0, 1.0), 1.0 / 4.000001);
  EXPECT_EQ(clip_coefficient(4.0, 0.0), 1.0);
}

TEST(DecayGroups, EqualTheTrainers) {
  for (const char* kind : {"bert", "gpt2"}) {
    for (const Json& each : golden().at("decay_groups").at(kind).at("parameters")) {
      const auto name = each.at("name").get<std::string>();
      EXPECT_EQ(name_is_decayed(name) && !each.at("layer_norm").get<bool>(), each.at("decay").get<bool>()) << name;
    }
  }
  for (const Json& each : golden().at("decay_groups").at("odd_names")) {
    EXPECT_EQ(name_is_decayed(each.at("name").get<std::string>()), each.at("decay").get<bool>()) << each.at("name");
  }
}

TEST(GradScaler, FollowsTorch) {
  const Json& run = golden().at("grad_scaler");
  GradScaler scaler({.growth_interval = run.at("growth_interval").get<std::int64_t>()});
  for (std::size_t i = 0; i < run.at("finite").size(); ++i) {
    const bool finite = run.at("finite")[i].get<int>() == 1;
    EXPECT_EQ(scaler.update(finite), finite);
    EXPECT_EQ(scaler.scale(), run.at("scales")[i].get<double>()) << "step " << i;
  }
}

TEST(GradScaler, StateGoesOnAndIsChecked) {
  const GradScalerOptions options{.growth_interval = 3};
  GradScaler scaler(options);
  EXPECT_FALSE(scaler.update(false));
  EXPECT_TRUE(scaler.update(true));
  EXPECT_TRUE(scaler.update(true));
  const test::TempFolder folder;
  const auto file = folder.path() / "optimizer.safetensors";
  write_safetensors(file, scaler.state(), {});
  GradScaler resumed(options);
  resumed.load_state(SafetensorsFile(file));
  EXPECT_EQ(resumed.scale(), 32768.0);
  EXPECT_TRUE(resumed.update(true));
  EXPECT_EQ(resumed.scale(), 65536.0);  // the third good step in a row

  write_safetensors(
      file, {{"grad_scaler.scale", at::zeros({}, at::kDouble)}, {"grad_scaler.good_steps", at::zeros({}, at::kLong)}},
      {});
  EXPECT_THROW(resumed.load_state(SafetensorsFile(file)), Error);
  write_safetensors(file, {{"other", at::zeros({})}}, {});
  EXPECT_THROW(resumed.load_state(SafetensorsFile(file)), Error);
}

}  // namespace
}  // namespace dtrain
