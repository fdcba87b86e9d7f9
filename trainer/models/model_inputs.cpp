#include "trainer/models/model_inputs.h"

#include <algorithm>

#include <ATen/ops/tensor.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "core/error.h"

namespace dtrain {
namespace {

void check_ids(const at::Tensor& ids, const char* name, std::int64_t limit) {
  if (!ids.is_cpu()) return;  // looking at them would stop the device
  const at::Tensor contiguous = ids.contiguous();
  const auto* begin = contiguous.const_data_ptr<std::int64_t>();
  const auto* end = begin + contiguous.numel();
  const auto* bad = std::find_if(begin, end, [&](std::int64_t id) { return id < 0 || id >= limit; });
  if (bad == end) return;
  const std::int64_t length = ids.size(1);
  throw data_error(fmt::format("{}: {} at example {}, position {} of the batch is not below {}", name, *bad,
                               (bad - begin) / length, (bad - begin) % length, limit),
                   "use the tokenizer that belongs to the model");
}

at::Tensor optional_tensor(const Batch& batch, const char* name, const at::Tensor& like) {
  if (!batch.has(name)) return {};
  const at::Tensor& tensor = batch[name];
  if (tensor.sizes() != like.sizes()) {
    throw data_error(fmt::format("{} has shape [{}], input_ids has [{}]", name, fmt::join(tensor.sizes(), ", "),
                                 fmt::join(like.sizes(), ", ")));
  }
  return tensor;
}

}  // namespace

ModelInputs read_inputs(const Batch& batch, const Model& model, std::int64_t type_vocab_size) {
  if (!batch.has("input_ids")) throw data_error("the batch has no input_ids");
  ModelInputs inputs;
  inputs.input_ids = batch["input_ids"];
  const at::Tensor& ids = inputs.input_ids;
  if (ids.dim() != 2 || ids.scalar_type() != at::kLong || ids.numel() == 0) {
    throw data_error(fmt::format("input_ids is [{}] of {}, expected [batch, length] of int64",
                                 fmt::join(ids.sizes(), ", "), c10::toString(ids.scalar_type())));
  }
  if (ids.size(1) > model.max_positions()) {
    throw data_error(fmt::format("a sequence of {} tokens is too long: the model has {} positions", ids.size(1),
                                 model.max_positions()),
                     fmt::format("set max_length to at most {}", model.max_positions()));
  }
  check_ids(ids, "input_ids", model.vocab_size());
  inputs.attention_mask = optional_tensor(batch, "attention_mask", ids);
  inputs.token_type_ids = optional_tensor(batch, "token_type_ids", ids);
  if (inputs.token_type_ids.defined()) check_ids(inputs.token_type_ids, "token_type_ids", type_vocab_size);
  inputs.full = !inputs.attention_mask.defined() || batch.num_tokens == ids.numel();
  if (model.is_training() && !batch.slot.empty()) {
    DTRAIN_CHECK(static_cast<std::int64_t>(batch.slot.size()) == ids.size(0), "{} slots for {} examples",
                 batch.slot.size(), ids.size(0));
    inputs.dropout = {batch.random, at::tensor(batch.slot, at::kLong).to(ids.device(), /*non_blocking=*/true)};
  }
  return inputs;
}

}  // namespace dtrain
