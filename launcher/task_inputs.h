// What differs by task between the settings and the run: how the files are read and tokenised, how examples become
// batches, what metrics look at. Local.
#pragma once

#include <cstdint>
#include <memory>

#include "configs/train_config.h"
#include "datasets/collators/collator.h"
#include "datasets/token_data.h"
#include "launcher/inputs.h"
#include "trainer/metrics/metric.h"

namespace dtrain {

// `inputs` with task, problem, labels, tokenizer and max_length.
[[nodiscard]] std::shared_ptr<const Collator> make_collator(const TrainConfig& config, const Inputs& inputs,
                                                            std::int32_t pad_id);
// Of the training data.
[[nodiscard]] TokenDataOptions token_data_options(const TrainConfig& config, const Inputs& inputs);
[[nodiscard]] MetricScope metric_scope(const Inputs& inputs);

}  // namespace dtrain
