// LabelKind: what the label of an example is. It decides how a label is read and what tensor it becomes.
#pragma once

#include <cstdint>

namespace dtrain {

enum class LabelKind : std::uint8_t {
  kClass,       // one class index in [0, num_labels)
  kRegression,  // num_labels real numbers (one, as a rule)
  kMultiLabel,  // num_labels values, each 0 or 1
};

}  // namespace dtrain
