// What the tests of the models share: the recorded models and batches of tests/golden/record_models.py.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "core/error.h"
#include "core/json.h"
#include "datasets/batch.h"
#include "tests/support/temp_folder.h"
#include "trainer/models/model.h"
#include "trainer/models/safetensors.h"

namespace dtrain::test {

[[nodiscard]] std::filesystem::path model_folder(const std::string& model_type);  // tests/data/models/tiny-...
[[nodiscard]] const Json& golden_cases(const std::string& model_type);

// The batch of a recorded case, with slots 0, 1, 2 and weight 1 for each example.
[[nodiscard]] Batch recorded_batch(const Json& recorded);
// One example of it, keeping its slot.
[[nodiscard]] Batch single_example(const Batch& batch, std::int64_t example);

// A tensor of nested arrays of numbers.
[[nodiscard]] at::Tensor tensor_of(const Json& values, at::ScalarType type);
[[nodiscard]] double largest_difference(const at::Tensor& a, const at::Tensor& b);

// A copy of a recorded model in `folder`, changed: `edit` gets the tensors, `edit_config` the config.json.
void write_variant(const std::string& model_type, const std::filesystem::path& folder,
                   const std::function<void(NamedTensors&)>& edit, const std::function<void(Json&)>& edit_config = {});

// load_model of a recorded model or a folder, in evaluation mode.
[[nodiscard]] std::shared_ptr<Model> load_for_evaluation(const ModelOptions& options);

// What the Error says that `body` throws, hint included; fails when it throws none or one with another code.
[[nodiscard]] std::string error_of(ExitCode code, const std::function<void()>& body);

}  // namespace dtrain::test
