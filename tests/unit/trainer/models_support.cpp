#include "tests/unit/trainer/models_support.h"

#include <map>
#include <vector>

#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include "core/file.h"

namespace dtrain::test {
namespace {

void flatten(const Json& values, std::vector<double>& flat) {
  if (values.is_array()) {
    for (const Json& each : values) flatten(each, flat);
  } else {
    flat.push_back(values.get<double>());
  }
}

}  // namespace

std::filesystem::path model_folder(const std::string& model_type) { return test_data("models/tiny-" + model_type); }

const Json& golden_cases(const std::string& model_type) {
  static std::map<std::string, Json> cache;
  const auto [found, inserted] = cache.try_emplace(model_type);
  if (inserted) found->second = read_json_file(model_folder(model_type) / "golden.json");
  return found->second;
}

at::Tensor tensor_of(const Json& values, at::ScalarType type) {
  std::vector<std::int64_t> shape;
  for (const Json* level = &values; level->is_array(); level = &level->front()) {
    shape.push_back(static_cast<std::int64_t>(level->size()));
  }
  std::vector<double> flat;
  flatten(values, flat);
  return at::tensor(flat, at::kDouble).to(type).view(shape);
}

double largest_difference(const at::Tensor& a, const at::Tensor& b) {
  EXPECT_EQ(a.sizes(), b.sizes());
  return (a.detach().to(at::kDouble) - b.detach().to(at::kDouble)).abs().max().item<double>();
}

Batch recorded_batch(const Json& recorded) {
  Batch batch;
  for (const auto& [name, values] : recorded.at("batch").items()) batch.tensors[name] = tensor_of(values, at::kLong);
  const bool classes = recorded.at("problem_type") == "single_label_classification";
  batch.tensors["labels"] = tensor_of(recorded.at("labels"), classes ? at::kLong : at::kFloat);
  batch.size = batch["input_ids"].size(0);
  for (std::int64_t i = 0; i < batch.size; ++i) {
    batch.slot.push_back(i);
    batch.example_index.push_back(i);
    batch.example_weight.push_back(1);
  }
  batch.weight = static_cast<double>(batch.size);
  batch.random = {1234, 5};
  return batch;
}

Batch single_example(const Batch& batch, std::int64_t example) {
  Batch one = batch;
  for (auto& [name, tensor] : one.tensors) tensor = tensor.narrow(0, example, 1);
  const auto i = static_cast<std::size_t>(example);
  one.size = 1;
  one.weight = 1;
  one.slot = {batch.slot[i]};
  one.example_index = {batch.example_index[i]};
  one.example_weight = {batch.example_weight[i]};
  return one;
}

void write_variant(const std::string& model_type, const std::filesystem::path& folder,
                   const std::function<void(NamedTensors&)>& edit, const std::function<void(Json&)>& edit_config) {
  const SafetensorsFile file(model_folder(model_type) / "model.safetensors");
  NamedTensors tensors;
  for (const std::string& name : file.names()) tensors.emplace_back(name, file.tensor(name).clone());
  if (edit) edit(tensors);
  write_safetensors(folder / "model.safetensors", tensors, {{"format", "pt"}});
  Json config = read_json_file(model_folder(model_type) / "config.json");
  if (edit_config) edit_config(config);
  write_file_synced(folder / "config.json", config.dump());
}

std::shared_ptr<Model> load_for_evaluation(const ModelOptions& options) {
  std::shared_ptr<Model> model = load_model(options).model;
  model->eval();
  return model;
}

std::string error_of(ExitCode code, const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    return std::string(error.what()) + " | " + error.hint();
  }
  ADD_FAILURE() << "nothing was refused";
  return "";
}

}  // namespace dtrain::test
