// The model card: README.md of a model on the Hub, with the metadata, hyperparameters and tables that the Trainer's own
// card has (transformers 5.17, TrainingSummary), as pure functions.
#pragma once

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "configs/train_config.h"
#include "core/json.h"

namespace dtrain {

struct ModelCardFacts {
  std::string name = {};        // the title
  std::string task = {};        // model.task
  bool from_scratch = false;    // no pretrained weights
  std::string base_model = {};  // repository of the pretrained model; "" when it is a folder of the user's
  std::string license = {};     // as the base model's card says; "" when that is not known
  std::string dataset = {};     // repository of the data; "" when they are files of the user's
  OrderedJson results = {};     // the evaluation of these weights (eval_loss, ...); null: there is none
  std::vector<OrderedJson> log_history = {};
  std::vector<std::pair<std::string, std::string>> hyperparameters = {};
  std::vector<std::pair<std::string, std::string>> versions = {};
};

// The text of README.md: YAML between two lines "---", then Markdown. Evaluations of the training that are in
// log_history before its record of the whole training make the results table.
[[nodiscard]] std::string model_card(const ModelCardFacts& facts);

// Names and values as the Trainer's card has them.
[[nodiscard]] std::vector<std::pair<std::string, std::string>> card_hyperparameters(const TrainConfig& config,
                                                                                    int world_size, bool on_gpu);

// The license that the card of the model in `folder` states, or "".
[[nodiscard]] std::string license_of(const std::filesystem::path& folder);

// Whether a README.md is one that model_card() wrote and nobody has made his own: its comment is still there.
[[nodiscard]] bool is_generated_card(std::string_view text);

}  // namespace dtrain
