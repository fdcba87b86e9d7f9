// What differs by task between the settings and the run: how the files are read and tokenised, how examples become
// batches, what metrics look at, how texts are written. Local.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>

#include "configs/train_config.h"
#include "datasets/collators/collator.h"
#include "datasets/token_data.h"
#include "launcher/inputs.h"
#include "trainer/evaluation.h"
#include "trainer/metrics/metric.h"

namespace dtrain {

// `inputs` with task, problem, labels, tokenizer and max_length.
[[nodiscard]] std::shared_ptr<const Collator> make_collator(const TrainConfig& config, const Inputs& inputs,
                                                            std::int32_t pad_id);
// Of the training data.
[[nodiscard]] TokenDataOptions token_data_options(const TrainConfig& config, const Inputs& inputs);
[[nodiscard]] MetricScope metric_scope(const TrainConfig& config, const Inputs& inputs);
// How the model writes texts; null for models that write none.
[[nodiscard]] std::shared_ptr<const TextWriter> text_writer(const TrainConfig& config, const Inputs& inputs);
// The generation_config.json that the result shall carry, as the settings or else the model name it; absent without.
[[nodiscard]] std::optional<std::filesystem::path> generation_file(const TrainConfig& config,
                                                                   const std::filesystem::path& model_folder);

}  // namespace dtrain
