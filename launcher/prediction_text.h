// One line of predictions.jsonl.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "trainer/models/model.h"

namespace dtrain {

// {"index":0,"label":"pos","label_id":1,"scores":[0.02,0.98]} with the probabilities of the classes; with several
// labels
// {"index":0,"labels":["a","c"],"scores":[...]}, those of a probability above 0.5; for regression
// {"index":0,"value":3.5} or "values". Probabilities by softmax or logistic function in float64, written as float32.
// `names`: of the classes.
[[nodiscard]] std::string prediction_text(std::int64_t index, std::span<const float> logits, ProblemType problem,
                                          const std::vector<std::string>& names);

// {"index":0,"tags":["B-person","O"]}: the class of each word; `logits` [words, classes].
[[nodiscard]] std::string tags_text(std::int64_t index, std::span<const float> logits,
                                    const std::vector<std::string>& names);

// Names of the classes, in the order of their numbers, from a config.json.
[[nodiscard]] std::vector<std::string> class_names(const Json& model_config);

}  // namespace dtrain
