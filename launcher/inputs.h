// Inputs: model, tokenizer and data of a run, loaded and checked against each other.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "configs/train_config.h"
#include "datasets/collators/collator.h"
#include "datasets/dataset.h"
#include "datasets/label_kind.h"
#include "datasets/tokenizers/tokenizer.h"
#include "dist/host_comm.h"
#include "dist/world.h"
#include "trainer/models/model.h"
#include "trainer/registry.h"

namespace dtrain {

// How a data set was got.
struct LoadedData {
  std::string name;                  // "training", "evaluation"
  std::size_t files = 0;             // that it was read from
  std::filesystem::path store = {};  // of its tokens
  bool built = false;                // by this rank, and not found
  double seconds = 0;
};

struct Inputs {
  Registry registry;             // of the plugin; else empty
  std::shared_ptr<Model> model;  // on the CPU
  LoadReport report;
  Task task = Task::kSequenceClassification;
  std::int64_t num_labels = 0;  // 0 for language models
  ProblemType problem_type = ProblemType::kSingleLabel;
  std::shared_ptr<const Tokenizer> tokenizer;
  std::int64_t max_length = 0;
  std::shared_ptr<const Dataset> train_data;  // null when it is not wanted
  std::shared_ptr<const Dataset> eval_data;   // null when data.eval is not set
  std::vector<LoadedData> loaded;             // what there is of the two
  std::shared_ptr<const Collator> collator;
  // Name and content of the tokenizer's files, and of generation_config.json, as the result carries them: read once, so
  // that a run does not depend on files that change under it.
  std::vector<std::pair<std::string, std::string>> tokenizer_files;
};

struct InputsWanted {
  bool train_data = true;
  bool eval_labels = true;  // false: the evaluation data has none
};

// Collective: one rank per node builds missing token stores with `threads` threads, the others wait and open them; the
// digests of data and tokenizer are compared between all ranks. Throws Error for everything that does not fit.
[[nodiscard]] Inputs load_inputs(const TrainConfig& config, const World& world, HostComm& host, int threads,
                                 const InputsWanted& wanted = {});

// What the head predicts, as the settings or else config.json of the model say it.
struct Problem {
  ProblemType type = ProblemType::kSingleLabel;
  std::int64_t num_labels = 0;  // 0: the model's own default
};
[[nodiscard]] Problem problem_of(const ModelConfig& settings, const Json& model_json);

}  // namespace dtrain
