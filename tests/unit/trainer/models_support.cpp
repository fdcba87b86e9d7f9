#include "tests/unit/trainer/models_support.h"

#include <ATen/ops/empty.h>

#include "core/error.h"
#include "core/file.h"

namespace dtrain::test {
namespace {

void flatten(const Json& json, std::vector<double>& values, std::vector<std::int64_t>& shape, std::size_t depth) {
  if (!json.is_array()) {
    values.push_back(json.get<double>());
    return;
  }
  if (shape.size() == depth) shape.push_back(static_cast<std::int64_t>(json.size()));
  for (const Json& item : json) flatten(item, values, shape, depth + 1);
}

}  // namespace

at::Tensor tensor_of(const Json& json, at::ScalarType type) {
  std::vector<double> values;
  std::vector<std::int64_t> shape;
  flatten(json, values, shape, 0);
  at::Tensor tensor = at::empty(shape, at::kDouble);
  std::copy(values.begin(), values.end(), tensor.mutable_data_ptr<double>());
  return tensor.to(type);
}

ProblemType problem_of(const std::string& name) {
  if (name == "regression") return ProblemType::kRegression;
  return name == "multi_label_classification" ? ProblemType::kMultiLabel : ProblemType::kSingleLabel;
}

Batch batch_of(const Json& inputs, const Json& labels, ProblemType problem) {
  Batch batch;
  for (const auto& [name, value] : inputs.items()) batch.tensors[name] = tensor_of(value, at::kLong);
  if (!labels.is_null()) {
    batch.tensors["labels"] = tensor_of(labels, problem == ProblemType::kSingleLabel ? at::kLong : at::kFloat);
  }
  batch.size = batch["input_ids"].size(0);
  for (std::int64_t i = 0; i < batch.size; ++i) {
    batch.example_index.push_back(100 + i);
    batch.slot.push_back(i);
    batch.example_weight.push_back(1);
  }
  batch.random = {42, 0};
  batch.weight = static_cast<double>(batch.size);
  return batch;
}

double difference(const at::Tensor& a, const at::Tensor& b) {
  DTRAIN_CHECK(a.sizes() == b.sizes(), "tensors of different shapes");
  return a.to(at::kDouble).sub(b.to(at::kDouble)).abs().max().item<double>();
}

void copy_model(const std::filesystem::path& from, const std::filesystem::path& to, const ModelChange& change) {
  std::filesystem::create_directories(to);
  Json config = read_json_file(from / "config.json");
  if (change.config) change.config(config);
  write_file_synced(to / "config.json", config.dump());
  const SafetensorsFile file(from / "model.safetensors");
  NamedTensors tensors;
  for (const std::string& name : file.names()) tensors.emplace_back(name, file.tensor(name));
  if (change.tensors) change.tensors(tensors);
  write_safetensors(to / "model.safetensors", tensors, {{"format", "pt"}});
}

std::map<std::string, at::Tensor> stored_parameters(const Model& model) {
  std::map<std::string, at::Tensor> result;
  for (const auto& item : model.named_parameters()) result.emplace(model.stored_name(item.key()), item.value());
  return result;
}

}  // namespace dtrain::test
