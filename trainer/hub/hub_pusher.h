// HubPusher: takes a run to the Hugging Face Hub as hub_strategy says (transformers.TrainingArguments): the model of
// each checkpoint in the background while training goes on, and the result at the end. Belongs to rank 0; nothing is
// collective, and no failure of an upload is an exception.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "trainer/callbacks/callback.h"
#include "trainer/hub/hub_uploads.h"

namespace dtrain {

struct HubPushOptions {
  HubTarget target;
  std::string strategy = "every_save";  // end, every_save, checkpoint, all_checkpoints
  bool always_push = false;             // a checkpoint waits for the upload before it, instead of being passed over
  std::filesystem::path output_dir;     // absolute
  // The model card of a run that has come so far; "" for none.
  std::function<std::string(const TrainerState&)> card;
};

class HubPusher final : public Callback {
 public:
  explicit HubPusher(HubPushOptions options);

  // Links the files of the checkpoint aside, so that they stay while older checkpoints are deleted, and starts the
  // upload.
  void on_save(const TrainerState& state, TrainerControl& control, const std::filesystem::path& checkpoint) override;

  // Uploads these files of output_dir (names or patterns) when everything before has arrived. Blocks; `interrupted`
  // ends the wait and the upload. Returns why it failed, or "".
  std::string push_result(std::vector<std::string> files, const std::function<bool()>& interrupted);

 private:
  [[nodiscard]] std::filesystem::path stage(const TrainerState& state, const std::filesystem::path& checkpoint) const;

  HubPushOptions options_;
  HubUploads uploads_;
};

}  // namespace dtrain
