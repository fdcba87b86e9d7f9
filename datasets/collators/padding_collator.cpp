#include "datasets/collators/padding_collator.h"

#include <algorithm>

#include <ATen/ops/empty.h>

#include "core/error.h"
#include "datasets/collators/padded_inputs.h"

namespace dtrain {
namespace {

// Classes are int64 [batch]; a single real number is float [batch]; several values are float [batch, values].
at::Tensor labels_of(std::span<const Example> examples, LabelKind kind) {
  const auto batch = static_cast<std::int64_t>(examples.size());
  if (kind == LabelKind::kClass) {
    at::Tensor labels = at::empty({batch}, at::kLong);
    auto* out = labels.mutable_data_ptr<std::int64_t>();
    for (const Example& example : examples) *out++ = static_cast<std::int64_t>(example.labels[0]);
    return labels;
  }
  const std::size_t width = examples[0].labels.size();
  at::Tensor labels = at::empty({batch, static_cast<std::int64_t>(width)}, at::kFloat);
  auto* out = labels.mutable_data_ptr<float>();
  for (const Example& example : examples) {
    DTRAIN_CHECK(example.labels.size() == width, "examples of one batch have {} and {} labels", width,
                 example.labels.size());
    out = std::transform(example.labels.begin(), example.labels.end(), out,
                         [](double value) { return static_cast<float>(value); });
  }
  return kind == LabelKind::kRegression && width == 1 ? labels.reshape({batch}) : labels;
}

class PaddingCollator : public Collator {
 public:
  explicit PaddingCollator(const PaddingOptions& options) : options_(options) {}

  [[nodiscard]] Batch collate(std::span<const Example> examples, const CollateKey& /*key*/) const override {
    Batch batch = padded_inputs(examples, options_.pad_id, options_.pad_to_multiple_of);
    if (!examples[0].labels.empty()) batch.tensors["labels"] = labels_of(examples, options_.label_kind);
    return batch;
  }

 private:
  PaddingOptions options_;
};

}  // namespace

std::shared_ptr<const Collator> make_padding_collator(const PaddingOptions& options) {
  return std::make_shared<PaddingCollator>(options);
}

}  // namespace dtrain
