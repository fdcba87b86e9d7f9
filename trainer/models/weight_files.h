// The weights of a model folder: model.safetensors, or the shards that model.safetensors.index.json lists, as one set
// of names.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "trainer/models/safetensors.h"

namespace dtrain {

class WeightFiles {
 public:
  // Throws Error(kData) when there are no weights in a format that is read here, or when they are damaged.
  explicit WeightFiles(const std::filesystem::path& folder);

  [[nodiscard]] const std::vector<std::string>& names() const { return names_; }
  [[nodiscard]] at::Tensor tensor(const std::string& name) const { return file_of_.at(name)->tensor(name); }
  // For messages: the file that has the tensor, or the folder's main file.
  [[nodiscard]] std::string path_of(const std::string& name) const;
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::vector<std::string> names_;
  std::map<std::string, const SafetensorsFile*> file_of_;
  std::map<std::string, std::string> path_of_;
};

}  // namespace dtrain
