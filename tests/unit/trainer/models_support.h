// What the tests of the models share: batches and golden values as JSON, changed copies of a model folder.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "core/json.h"
#include "datasets/batch.h"
#include "trainer/models/model.h"
#include "trainer/models/safetensors.h"

namespace dtrain::test {

// A tensor from nested JSON arrays: int64 when all numbers are whole and `type` is not given otherwise.
[[nodiscard]] at::Tensor tensor_of(const Json& json, at::ScalarType type);

// A batch from the inputs and labels of one golden case; labels may be null.
[[nodiscard]] Batch batch_of(const Json& inputs, const Json& labels, ProblemType problem);

[[nodiscard]] ProblemType problem_of(const std::string& name);

// The largest difference of two tensors of equal shape.
[[nodiscard]] double difference(const at::Tensor& a, const at::Tensor& b);

// A copy of the model in `from` with changed config and tensors.
struct ModelChange {
  std::function<void(Json&)> config;
  std::function<void(NamedTensors&)> tensors;
};
void copy_model(const std::filesystem::path& from, const std::filesystem::path& to, const ModelChange& change);

// The parameters under the names of model.safetensors.
[[nodiscard]] std::map<std::string, at::Tensor> stored_parameters(const Model& model);

}  // namespace dtrain::test
