// The last steps of a training: the model card beside the model, and both to the Hugging Face Hub when that is wanted.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "configs/train_config.h"
#include "core/json.h"
#include "dist/host_comm.h"
#include "trainer/hub/hub_pusher.h"
#include "trainer/hub/model_card.h"

namespace dtrain {

// What a card says of a run that has not begun. Local; looks for the license of the base model in its folder.
[[nodiscard]] ModelCardFacts card_facts(const TrainConfig& config, int world_size, bool on_gpu);

// With training.push_to_hub, on rank 0: checks what an upload needs, Error(kUsage) when something is missing; the
// callback that pushes checkpoints. Else null.
[[nodiscard]] std::shared_ptr<HubPusher> make_hub_pusher(const TrainConfig& config, const ModelCardFacts& facts,
                                                         const std::filesystem::path& output_dir);

// Writes README.md into output_dir, unless one is there that somebody has made his own. Local, rank 0; a failure is a
// warning: the model is what counts.
void write_model_card(const std::filesystem::path& output_dir, const ModelCardFacts& facts);

// Collective. Rank 0 uploads model, card and result files with `pusher` (not used on other ranks) and notes the outcome
// in run.json; the other ranks wait as long as that takes, whatever training.ddp_timeout says. Failures are warnings.
void push_result(HubPusher* pusher, const TrainingConfig& training,
                 const std::vector<std::pair<std::string, std::string>>& tokenizer_files, HostComm& host);

}  // namespace dtrain
