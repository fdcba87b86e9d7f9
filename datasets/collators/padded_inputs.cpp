#include "datasets/collators/padded_inputs.h"

#include <algorithm>
#include <utility>

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include "core/error.h"

namespace dtrain {
namespace {

at::Tensor to_tensor(const std::vector<std::int64_t>& values) {
  at::Tensor tensor = at::empty({static_cast<std::int64_t>(values.size())}, at::kLong);
  std::copy(values.begin(), values.end(), tensor.mutable_data_ptr<std::int64_t>());
  return tensor;
}

}  // namespace

Batch padded_inputs(std::span<const Example> examples, std::int32_t pad_id, std::int64_t multiple) {
  DTRAIN_CHECK(!examples.empty(), "a batch without examples");
  DTRAIN_CHECK(multiple >= 1, "pad_to_multiple_of is {}", multiple);
  std::size_t longest = 0;
  for (const Example& example : examples) longest = std::max(longest, example.ids.size());
  const std::int64_t length = (static_cast<std::int64_t>(longest) + multiple - 1) / multiple * multiple;

  Batch batch;
  batch.size = static_cast<std::int64_t>(examples.size());
  at::Tensor ids = at::full({batch.size, length}, pad_id, at::kLong);
  at::Tensor mask = at::zeros({batch.size, length}, at::kLong);
  auto* id_row = ids.mutable_data_ptr<std::int64_t>();
  auto* mask_row = mask.mutable_data_ptr<std::int64_t>();
  for (const Example& example : examples) {
    std::copy(example.ids.begin(), example.ids.end(), id_row);
    std::fill_n(mask_row, example.ids.size(), 1);
    id_row += length;
    mask_row += length;
    batch.num_tokens += static_cast<std::int64_t>(example.ids.size());
  }
  batch.tensors["input_ids"] = std::move(ids);
  batch.tensors["attention_mask"] = std::move(mask);
  return batch;
}

void Targets::store(Batch& batch) const {
  batch.tensors["targets"] = to_tensor(index_);
  batch.tensors["labels"] = to_tensor(labels_);
  batch.target_count = count_;
}

}  // namespace dtrain
