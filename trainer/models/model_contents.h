// ModelContents: what save_model() writes, as a value, for code that writes it later or elsewhere.
#pragma once

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "trainer/models/model.h"
#include "trainer/models/safetensors.h"

namespace dtrain {

struct ModelContents {
  NamedTensors tensors;                                    // of model.safetensors
  std::vector<std::pair<std::string, std::string>> files;  // name, content: config.json and those of Model::files()
};

// Tied copies are left out. The tensors are the live ones.
[[nodiscard]] ModelContents contents_of(const Model& model);

// Writes all of it into `folder`, synced.
void write_model(const ModelContents& contents, const std::filesystem::path& folder);

}  // namespace dtrain
