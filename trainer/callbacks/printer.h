// Printer: each log record as transformers.PrinterCallback prints it, on standard output of each node's first rank: a
// Python dictionary in one line, floats as strings of four significant digits, without total_flos.
//   {'loss': '0.6931', 'grad_norm': '2.13', 'learning_rate': '4.2e-05', 'epoch': '0.4'}
#pragma once

#include <string>

#include "trainer/callbacks/callback.h"

namespace dtrain {

class Printer final : public Callback {
 public:
  void on_log(const TrainerState& state, TrainerControl& control, const OrderedJson& record) override;
};

// The line without its end; "step" is no part of what the Trainer prints.
[[nodiscard]] std::string python_line(const OrderedJson& record);

}  // namespace dtrain
