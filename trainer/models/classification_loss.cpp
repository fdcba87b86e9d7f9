#include "trainer/models/classification_loss.h"

#include <vector>

#include <ATen/core/Reduction.h>
#include <ATen/ops/binary_cross_entropy_with_logits.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/mse_loss.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "core/error.h"

namespace dtrain {
namespace {

void check_classes(const at::Tensor& labels, std::int64_t num_labels) {
  if (!labels.is_cpu())
    return;  // looking at them would stop the device; the data set has been checked when it was read
  const at::Tensor contiguous = labels.contiguous();
  const auto* label = contiguous.const_data_ptr<std::int64_t>();
  for (std::int64_t i = 0; i < contiguous.numel(); ++i) {
    if (label[i] < 0 || label[i] >= num_labels) {
      throw data_error(fmt::format("example {} of the batch has label {}, the model has the classes 0 to {}", i,
                                   label[i], num_labels - 1),
                       "set num_labels to the number of classes of the data");
    }
  }
}

at::Tensor checked_labels(const at::Tensor& labels, const at::Tensor& logits, ProblemType problem_type) {
  const std::int64_t batch = logits.size(0);
  const std::int64_t num_labels = logits.size(1);
  const bool classes = problem_type == ProblemType::kSingleLabel;
  const std::int64_t expected = classes ? batch : batch * num_labels;
  const bool one_each = labels.dim() == 1 && (classes || (problem_type == ProblemType::kRegression && num_labels == 1));
  if (labels.numel() != expected || labels.size(0) != batch || (!one_each && labels.dim() != 2)) {
    throw data_error(fmt::format("labels of shape [{}] do not fit {} examples and {} labels",
                                 fmt::join(labels.sizes(), ", "), batch, num_labels),
                     "check problem_type and num_labels");
  }
  if (!classes) return labels.to(at::kFloat).view({batch, num_labels});
  if (!c10::isIntegralType(labels.scalar_type(), /*includeBool=*/false)) {
    throw data_error(fmt::format("labels of type {} are no class numbers", c10::toString(labels.scalar_type())),
                     "check problem_type");
  }
  const at::Tensor numbers = labels.to(at::kLong).view({batch});
  check_classes(numbers, num_labels);
  return numbers;
}

at::Tensor loss_of(const at::Tensor& logits, const at::Tensor& labels, ProblemType problem_type) {
  switch (problem_type) {
    case ProblemType::kSingleLabel:
      return at::cross_entropy_loss(logits, labels, {}, at::Reduction::None);
    case ProblemType::kMultiLabel:
      return at::binary_cross_entropy_with_logits(logits, labels, {}, {}, at::Reduction::None).mean(1);
    case ProblemType::kRegression:
      return at::mse_loss(logits, labels, at::Reduction::None).mean(1);
  }
  DTRAIN_CHECK(false, "a problem type without a loss");
  return {};
}

}  // namespace

ModelOutput classify(const at::Tensor& logits, const Batch& batch, ProblemType problem_type) {
  ModelOutput output;
  output.logits = logits.to(at::kFloat);
  if (!batch.has("labels")) return output;
  const at::Tensor labels = checked_labels(batch["labels"], output.logits, problem_type);
  const at::Tensor loss = loss_of(output.logits, labels, problem_type);
  output.loss_each = loss.detach();
  if (batch.example_weight.empty()) {
    output.loss_sum = loss.sum();
    return output;
  }
  DTRAIN_CHECK(static_cast<std::int64_t>(batch.example_weight.size()) == loss.size(0), "{} weights for {} examples",
               batch.example_weight.size(), loss.size(0));
  const at::Tensor weight = at::tensor(batch.example_weight, at::kFloat).to(loss.device(), /*non_blocking=*/true);
  output.loss_sum = (loss * weight).sum();
  return output;
}

}  // namespace dtrain
