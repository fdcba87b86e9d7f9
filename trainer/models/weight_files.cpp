#include "trainer/models/weight_files.h"

#include <fmt/format.h>

#include "core/error.h"
#include "core/json.h"

namespace dtrain {
namespace {

// The index of a sharded model: tensor name -> file name.
std::map<std::string, std::string> read_index(const std::filesystem::path& path) {
  const Json index = read_json_file(path);
  const auto map = index.is_object() ? index.find("weight_map") : index.end();
  if (!index.is_object() || map == index.end() || !map->is_object() || map->empty()) {
    throw data_error(path.string() + ": \"weight_map\" must be an object that names a file for each tensor");
  }
  std::map<std::string, std::string> result;
  for (const auto& [name, file] : map->items()) {
    const std::string text = file.is_string() ? file.get<std::string>() : "";
    if (text.empty() || text != std::filesystem::path(text).filename().string() || text == "..") {
      throw data_error(fmt::format("{}: the file of tensor {:?} is {}, expected a name in the same folder",
                                   path.string(), name, file.dump()));
    }
    result[name] = text;
  }
  return result;
}

}  // namespace

WeightFiles::WeightFiles(const std::filesystem::path& folder) {
  const std::filesystem::path single = folder / "model.safetensors";
  const std::filesystem::path index = folder / "model.safetensors.index.json";
  if (std::filesystem::exists(single)) {
    path_ = single.string();
    files_.push_back(std::make_unique<SafetensorsFile>(single));
    names_ = files_.back()->names();
    for (const std::string& name : names_) {
      file_of_[name] = files_.back().get();
      path_of_[name] = path_;
    }
  } else if (std::filesystem::exists(index)) {
    path_ = index.string();
    std::map<std::string, const SafetensorsFile*> opened;
    for (const auto& [name, file] : read_index(index)) {
      const SafetensorsFile*& shard = opened[file];
      if (shard == nullptr) {
        files_.push_back(std::make_unique<SafetensorsFile>(folder / file));
        shard = files_.back().get();
      }
      if (!shard->has(name)) {
        throw data_error(fmt::format("{}: tensor {:?} should be in {} but is not", path_, name, file),
                         "the shards do not belong together; copy or download the model again");
      }
      names_.push_back(name);
      file_of_[name] = shard;
      path_of_[name] = (folder / file).string();
    }
  } else {
    const bool pickled = std::filesystem::exists(folder / "pytorch_model.bin") ||
                         std::filesystem::exists(folder / "pytorch_model.bin.index.json");
    throw data_error(fmt::format("{}: there is no model.safetensors", folder.string()),
                     pickled ? "pytorch_model.bin is not read; convert it once in Python: "
                               "AutoModel.from_pretrained(folder).save_pretrained(folder)"
                             : "give the folder of a model, or set random_init to start from random weights");
  }
}

std::string WeightFiles::path_of(const std::string& name) const {
  const auto found = path_of_.find(name);
  return found == path_of_.end() ? path_ : found->second;
}

}  // namespace dtrain
