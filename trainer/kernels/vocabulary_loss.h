// The loss of language models: cross-entropy of hidden states against a vocabulary. Differentiable.
//
// Scores of all tokens against all words would be the largest tensor of a step by far (16 x 512 tokens of GPT-2: 1.6
// GB). Here they exist for a few rows at a time, and the gradients, which differ from the final ones only by the factor
// that backward hands in, are computed with them (the way of the Liger kernels, Hsu et al. 2024).
#pragma once

#include <ATen/core/Tensor.h>

#include "trainer/kernels/dense.h"

namespace dtrain {

struct VocabularyLoss {
  at::Tensor sum;        // scalar float32: of weight x loss
  at::Tensor each;       // [rows] float32, unweighted, detached
  at::Tensor predicted;  // [rows] int64: the first of the most probable words; undefined where gradients are wanted
};

// `hidden` [rows, size]; `vocabulary` [words, size] with a bias [words] or none; `targets` [rows] int64, words;
// `weights` [rows] float32, or undefined for 1 each. `smoothing` as in at::cross_entropy_loss. Products are computed in
// the type of autocast where that is on.
[[nodiscard]] VocabularyLoss vocabulary_loss(const at::Tensor& hidden, const DensePart& vocabulary,
                                             const at::Tensor& targets, const at::Tensor& weights, double smoothing);

}  // namespace dtrain
