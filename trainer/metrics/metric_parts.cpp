#include "trainer/metrics/metric_parts.h"

#include <cmath>

#include "core/error.h"

namespace dtrain {

ClassBatch::ClassBatch(const at::Tensor& logits, const at::Tensor& labels, std::int64_t num_labels, bool multi_label)
    : num_labels_(num_labels), size_(logits.size(0)) {
  DTRAIN_CHECK(logits.dim() == 2 && logits.size(1) == num_labels, "logits with {} dimensions", logits.dim());
  DTRAIN_CHECK(labels.numel() == (multi_label ? size_ * num_labels : size_), "{} labels for {} examples",
               labels.numel(), size_);
  logits_ = logits.to(at::kCPU, at::kFloat).contiguous();
  labels_ = labels.to(at::kCPU, multi_label ? at::kFloat : at::kLong).contiguous();
}

std::int64_t ClassBatch::predicted_class(std::int64_t example) const {
  const std::span<const float> values = logits(example);
  std::size_t best = 0;
  for (std::size_t i = 1; i < values.size() && !std::isnan(values[best]); ++i) {
    if (values[i] > values[best] || std::isnan(values[i])) best = i;
  }
  return static_cast<std::int64_t>(best);
}

std::int64_t ClassBatch::true_class(std::int64_t example) const {
  const std::int64_t label = labels_.const_data_ptr<std::int64_t>()[example];
  if (label < 0 || label >= num_labels_) {
    throw data_error(fmt::format("label {} in the evaluation data, but the model has {} classes", label, num_labels_),
                     "set model.num_labels, or correct the data");
  }
  return label;
}

bool ClassBatch::truth(std::int64_t example, std::int64_t label) const {
  const float value = row(labels_, example)[static_cast<std::size_t>(label)];
  if (value != 0 && value != 1) {
    throw data_error(fmt::format("label value {} in the evaluation data of a multi-label problem", value),
                     "labels must be 0 or 1");
  }
  return value == 1;
}

}  // namespace dtrain
