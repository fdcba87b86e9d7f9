// The collator of examples that are tensors: every named tensor stacked along a new first dimension, as the Hub's
// default_data_collator does.
#pragma once

#include <memory>

#include "datasets/collators/collator.h"

namespace dtrain {

// Examples whose names, shapes or types differ within a batch are Error(kData) with the number of the example.
[[nodiscard]] std::shared_ptr<const Collator> make_stacking_collator();

}  // namespace dtrain
