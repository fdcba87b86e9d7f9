// CheckpointSnapshot: everything that goes into a checkpoint, as a value. copy_to_host() cuts it off from the training:
// afterwards another thread may write it while the steps go on.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "core/json.h"
#include "trainer/checkpoint/trainer_state.h"
#include "trainer/models/model_contents.h"

namespace dtrain {

// Of a checkpoint that can be resumed from.
inline constexpr const char* kOptimizerFile = "optimizer.safetensors";

struct CheckpointSnapshot {
  TrainerState state;
  ModelContents model;
  NamedTensors optimizer = {};                             // of kOptimizerFile; empty: the file is not written
  std::vector<std::pair<std::string, std::string>> files;  // name, content: tokenizer files, train.toml
  Json facts = Json::object();                             // for the manifest

  // Replaces every tensor by a copy in host memory.
  void copy_to_host();
  // What write() will write, but for the headers of the files and the trainer's state (a megabyte is allowed for both).
  [[nodiscard]] std::uint64_t bytes() const;
  // Local. Writes all files into `folder`, synced. Tensors on a GPU are copied first.
  void write(const std::filesystem::path& folder) const;
};

}  // namespace dtrain
