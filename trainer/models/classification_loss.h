// The loss of sequence classifiers, one value per example in float32, as transformers computes it: cross entropy for
// one label out of several, the mean over labels of the binary cross entropy for several labels, of the squared error
// for regression. The mean over labels makes a mean over examples equal to the mean that torch's criteria take over
// everything.
#pragma once

#include <ATen/core/Tensor.h>

#include "datasets/batch.h"
#include "trainer/models/model.h"

namespace dtrain {

// `logits` is [batch, labels] of any floating type. Without "labels" in the batch only ModelOutput::logits is defined.
// Throws Error(kData) for labels of the wrong shape or type, and (where they lie on the CPU) for classes out of range.
[[nodiscard]] ModelOutput classify(const at::Tensor& logits, const Batch& batch, ProblemType problem_type);

}  // namespace dtrain
