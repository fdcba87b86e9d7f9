// ScriptModel: a TorchScript file as a classifier or regression of texts: forward(input_ids [batch, length],
// attention_mask [batch, length]) gives the logits [batch, num_labels], alone, or first in a tuple, or as "logits" of a
// dictionary. Its parameters keep their names. Dropout in the file draws from LibTorch's generator, so it is different
// on each rank.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>

#include "trainer/models/model.h"

namespace dtrain {

// The TorchScript file that model.path means: a .pt file itself, or model.pt in a folder that such a model was saved
// into. Nothing when it is the folder of another model.
[[nodiscard]] std::optional<std::filesystem::path> script_file(const std::filesystem::path& path);

struct ScriptOptions {
  ProblemType problem_type = ProblemType::kSingleLabel;
  std::int64_t num_labels = 2;
  double label_smoothing = 0;
};

// Local; on the CPU. Throws Error(kData) for a file that is no TorchScript or has parameters other than float32.
[[nodiscard]] std::shared_ptr<Model> load_script_model(const std::filesystem::path& file, const ScriptOptions& options);

}  // namespace dtrain
