#include "trainer/models/transformer.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>
#include <utility>

#include <ATen/ops/binary_cross_entropy_with_logits.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mse_loss.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "core/error.h"
#include "datasets/collators/collator.h"
#include "trainer/kernels/cpu/parallel.h"
#include "trainer/kernels/embedding.h"
#include "trainer/kernels/vocabulary_loss.h"

namespace dtrain {
namespace {

// Values on another device are not read back: that would wait for the device in every step. `owner`: the example of
// each value, where they are not rows of examples.
void check_range(const at::Tensor& values, std::int64_t limit, const std::string& what, const Batch& batch,
                 const std::string& hint, const std::vector<std::int64_t>& owner = {}) {
  if (!values.is_cpu() || values.numel() == 0) return;
  const at::Tensor flat = values.contiguous();
  const auto* data = flat.const_data_ptr<std::int64_t>();
  const std::int64_t per_example = flat.numel() / flat.size(0);
  for (std::int64_t i = 0; i < flat.numel(); ++i) {
    if (data[i] >= 0 && data[i] < limit) continue;
    const auto example = static_cast<std::size_t>(owner.empty() ? i / per_example : owner[static_cast<std::size_t>(i)]);
    const std::string place = example < batch.example_index.size()
                                  ? fmt::format("example {}", batch.example_index[example])
                                  : fmt::format("example {} of the batch", example);
    throw data_error(fmt::format("{}: {} {} is not in 0..{}", place, what, data[i], limit - 1), hint);
  }
}

template <class T>
at::Tensor to_tensor(const std::vector<T>& values, at::ScalarType type, const at::Device& device) {
  at::Tensor tensor = at::empty({static_cast<std::int64_t>(values.size())}, type);
  if (!values.empty()) std::memcpy(tensor.mutable_data_ptr(), values.data(), values.size() * sizeof(T));
  return tensor.to(device);
}

// The place in the batch of the example of each label.
std::vector<std::int64_t> example_of_each_label(const Batch& batch) {
  std::vector<std::int64_t> example;
  for (std::size_t i = 0; i < batch.target_count.size(); ++i) {
    example.insert(example.end(), static_cast<std::size_t>(batch.target_count[i]), static_cast<std::int64_t>(i));
  }
  return example;
}

// [labels] float32; undefined when all are 1.
at::Tensor label_weights(const Batch& batch, const at::Device& device) {
  const auto& weights = batch.example_weight;
  if (std::all_of(weights.begin(), weights.end(), [](float weight) { return weight == 1; })) return {};
  std::vector<float> each;
  for (const std::int64_t example : example_of_each_label(batch)) {
    each.push_back(weights[static_cast<std::size_t>(example)]);
  }
  return to_tensor(each, at::kFloat, device);
}

}  // namespace

TransformerModel::Inputs TransformerModel::checked_inputs(const Batch& batch, const std::string& ids,
                                                          const std::string& mask) const {
  DTRAIN_CHECK(batch.has(ids), "a batch without {}", ids);
  Inputs inputs;
  inputs.ids = batch[ids];
  DTRAIN_CHECK(inputs.ids.dim() == 2 && inputs.ids.scalar_type() == at::kLong && inputs.ids.size(0) == batch.size &&
                   batch.size > 0,
               "{} must be [{}, length] of int64", ids, batch.size);
  if (inputs.ids.size(1) < 1) throw data_error("a batch of examples without a single token");
  if (inputs.ids.size(1) > max_positions()) {
    throw data_error(fmt::format("a batch has {} tokens per example but the model has {} positions", inputs.ids.size(1),
                                 max_positions()),
                     fmt::format("set tokenizer.max_length to {} or less", max_positions()));
  }
  check_range(inputs.ids, vocab_size(), "token id", batch, "use the tokenizer that belongs to the model");
  if (batch.has(mask)) inputs.mask = batch[mask];
  DTRAIN_CHECK(!inputs.mask.defined() || inputs.mask.sizes() == inputs.ids.sizes(),
               "inputs of a batch differ in shape");
  return inputs;
}

ModelOutput TransformerModel::forward(const Batch& batch) {
  Inputs inputs = checked_inputs(batch, "input_ids", "attention_mask");
  if (batch.has("token_type_ids")) {
    inputs.types = batch["token_type_ids"];
    DTRAIN_CHECK(inputs.types.sizes() == inputs.ids.sizes(), "inputs of a batch differ in shape");
    check_range(inputs.types, num_types(), "token type", batch, "use the tokenizer that belongs to the model");
  }
  DropoutKeys keys;
  if (is_training()) {
    DTRAIN_CHECK(std::cmp_equal(batch.slot.size(), batch.size), "training needs a slot for each example");
    keys.key = batch.random;
    keys.slots = to_tensor(batch.slot, at::kLong, inputs.ids.device());
  }
  return run(batch, inputs, keys);
}

at::Tensor TransformerModel::target_rows(const at::Tensor& hidden, const TokenLayout& layout, const Batch& batch) {
  const at::Tensor& targets = batch["targets"];
  if (!layout.packed) return hidden.index_select(0, targets);
  at::Tensor rows = at::empty_like(targets);
  const auto* target = targets.const_data_ptr<std::int64_t>();
  auto* row = rows.mutable_data_ptr<std::int64_t>();
  for (std::int64_t i = 0; i < targets.numel(); ++i) {
    const TokenSpan& span = layout.spans[static_cast<std::size_t>(target[i] / layout.length)];
    const std::int64_t position = target[i] % layout.length;
    DTRAIN_CHECK(span.holds(position), "a label for padding, at position {}", position);
    row[i] = span.row + position - span.first;
  }
  return hidden.index_select(0, rows);
}

void TransformerModel::add_losses(const at::Tensor& each, const Batch& batch, ModelOutput& output) const {
  const auto& weights = batch.example_weight;
  DTRAIN_CHECK(weights.empty() || std::cmp_equal(weights.size(), batch.size), "one weight is due for each example");
  if (!batch.has("targets")) {
    output.loss_each = each.detach();
    const bool plain = std::all_of(weights.begin(), weights.end(), [](float weight) { return weight == 1; });
    if (!output.loss_sum.defined()) {
      output.loss_sum = (plain ? each : each.mul(to_tensor(weights, at::kFloat, each.device()))).sum();
    }
    return;
  }
  const at::Tensor example = to_tensor(example_of_each_label(batch), at::kLong, each.device());
  output.loss_each = at::zeros({batch.size}, each.options()).index_add_(0, example, each.detach());
  if (!output.loss_sum.defined()) {
    const at::Tensor factors = label_weights(batch, each.device());
    output.loss_sum = (factors.defined() ? each.mul(factors) : each).sum();
  }
}

ModelOutput TransformerModel::sequence_output(const at::Tensor& logits, const Batch& batch) const {
  ModelOutput output;
  output.logits = logits.to(at::kFloat);
  if (batch.has("labels")) add_losses(sequence_losses(head_, output.logits, batch), batch, output);
  return output;
}

ModelOutput TransformerModel::token_output(const at::Tensor& logits, const Batch& batch) const {
  ModelOutput output;
  output.logits = logits.to(at::kFloat);
  const at::Tensor& labels = batch["labels"];
  check_range(labels, num_labels(), "label", batch, "set model.num_labels to the number of classes",
              example_of_each_label(batch));
  add_losses(at::cross_entropy_loss(output.logits, labels, {}, at::Reduction::None, kNoLabel, head_.label_smoothing),
             batch, output);
  return output;
}

ModelOutput TransformerModel::vocabulary_output(const at::Tensor& hidden, const DensePart& vocabulary,
                                                const Batch& batch) const {
  const at::Tensor& labels = batch["labels"];
  check_range(labels, vocab_size(), "label", batch, "use the tokenizer that belongs to the model",
              example_of_each_label(batch));
  const VocabularyLoss loss =
      vocabulary_loss(hidden, vocabulary, labels, label_weights(batch, hidden.device()), head_.label_smoothing);
  ModelOutput output;
  output.loss_sum = loss.sum;
  output.predicted = loss.predicted;
  add_losses(loss.each, batch, output);
  return output;
}

at::Tensor TransformerModel::with_noise(const at::Tensor& embedded, const DropoutKeys& keys,
                                        const at::Tensor& mask) const {
  if (head_.neftune_noise_alpha == 0 || !keys.active()) return embedded;
  return embedded.add(embedding_noise(embedded, head_.neftune_noise_alpha, keys, mask));
}

at::Tensor sequence_losses(const HeadConfig& head, const at::Tensor& logits, const Batch& batch) {
  const at::Tensor& labels = batch["labels"];
  const auto expect = [&](bool right, const char* what) {
    if (!right) {
      throw data_error(fmt::format("the labels of a batch have shape [{}] and type {}, expected {}",
                                   fmt::join(labels.sizes(), ", "), c10::toString(labels.scalar_type()), what),
                       "check the label column and model.problem_type");
    }
  };
  const bool per_example = labels.numel() == batch.size && labels.size(0) == batch.size;
  switch (head.problem_type) {
    case ProblemType::kSingleLabel: {
      expect(per_example && labels.scalar_type() == at::kLong, "[batch] of int64");
      check_range(labels, head.num_labels, "label", batch, "set model.num_labels to the number of classes");
      return at::cross_entropy_loss(logits, labels.view({-1}), {}, at::Reduction::None, kNoLabel, head.label_smoothing);
    }
    case ProblemType::kMultiLabel: {
      expect(labels.sizes() == logits.sizes(), "[batch, num_labels]");
      return at::binary_cross_entropy_with_logits(logits, labels.to(at::kFloat), {}, {}, at::Reduction::None).mean(1);
    }
    case ProblemType::kRegression: {
      expect(head.num_labels == 1 ? per_example : labels.sizes() == logits.sizes(), "one number for each output");
      return at::mse_loss(logits, labels.to(at::kFloat).view_as(logits), at::Reduction::None).mean(1);
    }
  }
  DTRAIN_CHECK(false, "problem type {}", static_cast<int>(head.problem_type));
  return {};
}

Json TransformerModel::config_json() const { return model_json(head_, architecture(), pad_token_id()); }

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
