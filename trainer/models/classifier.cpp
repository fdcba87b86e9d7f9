#include "trainer/models/classifier.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>
#include <utility>

#include <ATen/ops/binary_cross_entropy_with_logits.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mse_loss.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "core/error.h"
#include "trainer/kernels/cpu/parallel.h"

namespace dtrain {
namespace {

// Values on another device are not read back: that would wait for the device in every step.
void check_range(const at::Tensor& values, std::int64_t limit, const std::string& what, const Batch& batch,
                 const std::string& hint) {
  if (!values.is_cpu() || values.numel() == 0) return;
  const at::Tensor flat = values.contiguous();
  const auto* data = flat.const_data_ptr<std::int64_t>();
  const std::int64_t per_example = flat.numel() / flat.size(0);
  for (std::int64_t i = 0; i < flat.numel(); ++i) {
    if (data[i] >= 0 && data[i] < limit) continue;
    const auto example = static_cast<std::size_t>(i / per_example);
    const std::string place = example < batch.example_index.size()
                                  ? fmt::format("example {}", batch.example_index[example])
                                  : fmt::format("example {} of the batch", example);
    throw data_error(fmt::format("{}: {} {} is not in 0..{}", place, what, data[i], limit - 1), hint);
  }
}

template <class T>
at::Tensor to_tensor(const std::vector<T>& values, at::ScalarType type, const at::Device& device) {
  at::Tensor tensor = at::empty({static_cast<std::int64_t>(values.size())}, type);
  std::memcpy(tensor.mutable_data_ptr(), values.data(), values.size() * sizeof(T));
  return tensor.to(device);
}

}  // namespace

ClassifierModel::Inputs ClassifierModel::checked_inputs(const Batch& batch) const {
  DTRAIN_CHECK(batch.has("input_ids"), "a batch without input_ids");
  Inputs inputs;
  inputs.ids = batch["input_ids"];
  DTRAIN_CHECK(inputs.ids.dim() == 2 && inputs.ids.scalar_type() == at::kLong && inputs.ids.size(0) == batch.size &&
                   batch.size > 0,
               "input_ids must be [{}, length] of int64", batch.size);
  if (inputs.ids.size(1) < 1) throw data_error("a batch of examples without a single token");
  if (inputs.ids.size(1) > max_positions()) {
    throw data_error(fmt::format("a batch has {} tokens per example but the model has {} positions", inputs.ids.size(1),
                                 max_positions()),
                     fmt::format("set tokenizer.max_length to {} or less", max_positions()));
  }
  check_range(inputs.ids, vocab_size(), "token id", batch, "use the tokenizer that belongs to the model");
  if (batch.has("attention_mask")) inputs.mask = batch["attention_mask"];
  if (batch.has("token_type_ids")) {
    inputs.types = batch["token_type_ids"];
    check_range(inputs.types, num_types(), "token type", batch, "use the tokenizer that belongs to the model");
  }
  for (const at::Tensor& other : {inputs.mask, inputs.types}) {
    DTRAIN_CHECK(!other.defined() || other.sizes() == inputs.ids.sizes(), "inputs of a batch differ in shape");
  }
  return inputs;
}

ModelOutput ClassifierModel::forward(const Batch& batch) {
  const Inputs inputs = checked_inputs(batch);
  DropoutKeys keys;
  if (is_training()) {
    DTRAIN_CHECK(std::cmp_equal(batch.slot.size(), batch.size), "training needs a slot for each example");
    keys.key = batch.random;
    keys.slots = to_tensor(batch.slot, at::kLong, inputs.ids.device());
  }
  ModelOutput output;
  output.logits = logits(inputs, keys).to(at::kFloat);
  if (!batch.has("labels")) return output;

  const at::Tensor each = losses(output.logits, batch);
  output.loss_each = each.detach();
  const auto& weights = batch.example_weight;
  DTRAIN_CHECK(weights.empty() || std::cmp_equal(weights.size(), batch.size), "one weight is due for each example");
  const bool plain = std::all_of(weights.begin(), weights.end(), [](float weight) { return weight == 1; });
  output.loss_sum = (plain ? each : each.mul(to_tensor(weights, at::kFloat, each.device()))).sum();
  return output;
}

at::Tensor ClassifierModel::losses(const at::Tensor& logits, const Batch& batch) const {
  const at::Tensor& labels = batch["labels"];
  const auto expect = [&](bool right, const char* what) {
    if (!right) {
      throw data_error(fmt::format("the labels of a batch have shape [{}] and type {}, expected {}",
                                   fmt::join(labels.sizes(), ", "), c10::toString(labels.scalar_type()), what),
                       "check the label column and model.problem_type");
    }
  };
  const bool per_example = labels.numel() == batch.size && labels.size(0) == batch.size;
  switch (classifier_config_.problem_type) {
    case ProblemType::kSingleLabel: {
      expect(per_example && labels.scalar_type() == at::kLong, "[batch] of int64");
      check_range(labels, num_labels(), "label", batch, "set model.num_labels to the number of classes");
      return at::cross_entropy_loss(logits, labels.view({-1}), {}, at::Reduction::None, /*ignore_index=*/-100,
                                    classifier_config_.label_smoothing);
    }
    case ProblemType::kMultiLabel: {
      expect(labels.sizes() == logits.sizes(), "[batch, num_labels]");
      return at::binary_cross_entropy_with_logits(logits, labels.to(at::kFloat), {}, {}, at::Reduction::None).mean(1);
    }
    case ProblemType::kRegression: {
      expect(num_labels() == 1 ? per_example : labels.sizes() == logits.sizes(), "one number for each output");
      return at::mse_loss(logits, labels.to(at::kFloat).view_as(logits), at::Reduction::None).mean(1);
    }
  }
  DTRAIN_CHECK(false, "problem type {}", static_cast<int>(classifier_config_.problem_type));
  return {};
}

Json ClassifierModel::config_json() const {
  return classifier_json(classifier_config_, architecture(), pad_token_id());
}

void draw_parameter(at::Tensor parameter, const std::string& name, const InitialValue& value, std::uint64_t seed) {
  const at::NoGradGuard no_grad;
  if (value.deviation == 0) {
    parameter.fill_(value.mean);
    return;
  }
  std::uint64_t mixed = mix64(seed);
  for (const char letter : name) mixed = mix64(mixed ^ static_cast<unsigned char>(letter));
  const PhiloxKey key{static_cast<std::uint32_t>(mixed), static_cast<std::uint32_t>(mixed >> 32)};

  // Box and Muller's transform in double: two uniform numbers of 32 bits, of which the first is never 0, give two
  // normal ones.
  const at::Tensor values = at::empty(parameter.sizes(), at::kFloat);
  auto* data = values.mutable_data_ptr<float>();
  const std::int64_t count = values.numel();
  cpu::parallel_for((count + 3) / 4, 4096, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t block = begin; block < end; ++block) {
      const PhiloxCounter words =
          philox4x32({static_cast<std::uint32_t>(block), static_cast<std::uint32_t>(block >> 32), 0, 0}, key);
      for (std::int64_t pair = 0; pair < 2; ++pair) {
        constexpr double kStep = 1.0 / 4294967296.0;
        const auto first = static_cast<std::size_t>(2 * pair);
        const double radius = std::sqrt(-2.0 * std::log((words[first] + 0.5) * kStep)) * value.deviation;
        const double angle = 2.0 * std::numbers::pi * words[first + 1] * kStep;
        const std::int64_t at = 4 * block + 2 * pair;
        if (at < count) data[at] = static_cast<float>(value.mean + radius * std::cos(angle));
        if (at + 1 < count) data[at + 1] = static_cast<float>(value.mean + radius * std::sin(angle));
      }
    }
  });
  if (value.zero_row >= 0) values.select(0, value.zero_row).zero_();
  parameter.copy_(values);
}

}  // namespace dtrain
