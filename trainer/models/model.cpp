#include "trainer/models/model.h"

#include <ATen/ops/tensor.h>

#include "trainer/kernels/dropout.h"

namespace dtrain {

ModelOutput output_of(const at::Tensor& losses, const at::Tensor& logits, const Batch& batch) {
  const at::Tensor weights = at::tensor(at::ArrayRef<float>(batch.example_weight)).to(losses.device());
  ModelOutput output;
  output.loss_each = losses.detach().to(at::kFloat);
  output.loss_sum = losses.to(at::kFloat).mul(weights).sum();
  output.logits = logits;
  return output;
}

Json Model::config_json() const {
  Json json = description_;
  json["model_type"] = model_type();
  return json;
}

at::Tensor Model::dropout(const at::Tensor& x, double probability, const Batch& batch, std::uint32_t site) const {
  if (!is_training()) return x;
  const at::Tensor slots = at::tensor(at::ArrayRef<std::int64_t>(batch.slot)).to(x.device());
  return counter_dropout(x, probability, {.key = batch.random, .slots = slots}, site);
}

}  // namespace dtrain
