#include "datasets/collators/padding_collator.h"

#include <algorithm>

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include "core/error.h"

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
  explicit PaddingCollator(const PaddingOptions& options) : options_(options) {
    DTRAIN_CHECK(options.pad_to_multiple_of >= 1, "pad_to_multiple_of is {}", options.pad_to_multiple_of);
  }

  [[nodiscard]] Batch collate(std::span<const Example> examples) const override {
    DTRAIN_CHECK(!examples.empty(), "a batch without examples");
    std::size_t longest = 0;
    for (const Example& example : examples) longest = std::max(longest, example.ids.size());
    const std::int64_t multiple = options_.pad_to_multiple_of;
    const std::int64_t length = (static_cast<std::int64_t>(longest) + multiple - 1) / multiple * multiple;
    const auto size = static_cast<std::int64_t>(examples.size());

    Batch batch;
    batch.size = size;
    at::Tensor ids = at::full({size, length}, options_.pad_id, at::kLong);
    at::Tensor mask = at::zeros({size, length}, at::kLong);
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
