// LogWriter: log.jsonl, one strict JSON object per log record, in order: "step" first, then the Trainer's own keys,
// unrounded (NaN and infinity: null), and in the records of training what only this file has, summed since the record
// before: "tokens" (without padding) and "input_elements" (with it) of all ranks, "seconds", rank 0's StepSpans, and,
// with several ranks, "rank_seconds": the time in which a rank did not wait for others (all spans but reduce) of the
// fastest and the slowest rank, and their mean. Rank 0 writes; each record reaches the file before on_log returns.
#pragma once

#include <filesystem>
#include <memory>

#include "core/file.h"
#include "dist/host_comm.h"
#include "trainer/callbacks/callback.h"

namespace dtrain {

class LogWriter final : public Callback {
 public:
  // With `host`, on_log of a training record is collective: it gathers the times of the ranks.
  explicit LogWriter(std::filesystem::path file, HostComm* host = nullptr) : path_(std::move(file)), host_(host) {}

  // Keeps the records of state.log_history: a resumed run continues the file, and does not repeat anything in it.
  void on_train_begin(const TrainerState& state, TrainerControl& control) override;
  void on_step_end(const TrainerState& state, TrainerControl& control, const StepReport& report) override;
  void on_log(const TrainerState& state, TrainerControl& control, const OrderedJson& record) override;
  void on_train_end(const TrainerState& state, TrainerControl& control) override;

 private:
  [[nodiscard]] OrderedJson rank_seconds() const;  // collective
  void forget();

  std::filesystem::path path_;
  HostComm* host_;
  std::unique_ptr<OutputFile> file_;
  std::int64_t tokens_ = 0;
  std::int64_t input_elements_ = 0;
  StepSpans spans_;
};

}  // namespace dtrain
