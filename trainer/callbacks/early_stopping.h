// EarlyStopping: stops training when metric_for_best_model has not improved by more than a threshold in `patience`
// evaluations in a row, as transformers.EarlyStoppingCallback does. Its count is not saved: a resumed run counts again
// through the log history.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "trainer/callbacks/callback.h"

namespace dtrain {

struct EarlyStoppingOptions {
  std::int64_t patience = 1;
  double threshold = 0;
  std::string metric = "eval_loss";  // with "eval_"
  bool greater_is_better = false;
};

class EarlyStopping final : public Callback {
 public:
  explicit EarlyStopping(EarlyStoppingOptions options) : options_(std::move(options)) {}

  void on_train_begin(const TrainerState& state, TrainerControl& control) override;
  void on_evaluate(const TrainerState& state, TrainerControl& control, const OrderedJson& metrics) override;

 private:
  void count(double value, const std::optional<double>& best);
  [[nodiscard]] bool better(double value, double than) const;

  EarlyStoppingOptions options_;
  std::int64_t without_improvement_ = 0;
};

}  // namespace dtrain
