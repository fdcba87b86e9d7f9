// Padding collator: the Trainer's DataCollatorWithPadding. Pads on the right to the longest example of the batch,
// rounded up to a multiple on request; gives "input_ids", "attention_mask" and "labels".
#pragma once

#include <cstdint>
#include <memory>

#include "datasets/collators/collator.h"
#include "datasets/label_kind.h"

namespace dtrain {

struct PaddingOptions {
  std::int32_t pad_id = 0;
  std::int64_t pad_to_multiple_of = 1;
  LabelKind label_kind = LabelKind::kClass;
};

[[nodiscard]] std::shared_ptr<const Collator> make_padding_collator(const PaddingOptions& options);

}  // namespace dtrain
