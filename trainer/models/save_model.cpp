#include <system_error>

#include "core/error.h"
#include "core/file.h"
#include "trainer/models/model.h"
#include "trainer/models/safetensors.h"

namespace dtrain {

void save_model(const Model& model, const std::filesystem::path& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) throw system_error("cannot create " + folder.string(), error.value());
  NamedTensors tensors;
  for (const auto& entry : model.named_parameters()) {
    tensors.emplace_back(model.stored_name(entry.key()), entry.value().detach());
  }
  write_safetensors(folder / "model.safetensors", tensors, {{"format", "pt"}});
  write_file_synced(folder / "config.json", model.config_json().dump(2) + "\n");
  sync_folder(folder);
}

}  // namespace dtrain
