#include "trainer/callbacks/log_writer.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <system_error>

namespace dtrain {
namespace {

std::int64_t step_of(const OrderedJson& record) {
  const auto found = record.find("step");
  return found == record.end() || !found->is_number_integer() ? -1 : found->get<std::int64_t>();
}

// The lines of `text` that a run going on from `state` keeps: those of its history. A run that was told to stop before
// the evaluation of its last step evaluates when it goes on, and again when it is then killed before the next
// checkpoint. A line that a crash cut short is dropped.
std::string records_up_to(std::string_view text, const TrainerState& state) {
  std::string kept;
  auto left_of_last_step = std::count_if(state.log_history.begin(), state.log_history.end(),
                                         [&](const auto& record) { return step_of(record) == state.global_step; });
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    if (end == std::string_view::npos) break;
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(end + 1);
    const OrderedJson record = OrderedJson::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!record.is_object()) continue;
    const std::int64_t step = step_of(record);
    if (step < 0 || step > state.global_step) continue;
    if (record.contains("train_runtime")) continue;  // the summary of an end after which the run goes on
    if (step == state.global_step && left_of_last_step-- <= 0) continue;
    kept.append(line).append("\n");
  }
  return kept;
}

}  // namespace

void LogWriter::on_train_begin(const TrainerState& state, TrainerControl&) {
  if (!state.is_world_process_zero) return;
  std::error_code code;
  if (std::filesystem::exists(path_, code)) {
    const std::string old = read_file(path_);
    const std::string kept = state.global_step > 0 ? records_up_to(old, state) : std::string();
    if (kept != old) replace_file(path_, kept);
  }
  file_ = std::make_unique<OutputFile>(path_, OutputFile::Mode::kAppend);
}

void LogWriter::on_step_end(const TrainerState&, TrainerControl&, const StepReport& report) {
  tokens_ += report.tokens;
  input_elements_ += report.input_elements;
  spans_ += report.spans;
}

void LogWriter::on_log(const TrainerState& state, TrainerControl&, const OrderedJson& record) {
  const bool is_training = record.contains("loss") && input_elements_ > 0;  // the same on all ranks
  const OrderedJson balance = is_training && host_ != nullptr && host_->size() > 1 ? rank_seconds() : OrderedJson();
  if (!state.is_world_process_zero) {
    if (is_training) forget();
    return;
  }
  OrderedJson line = {{"step", state.global_step}};
  for (const auto& [key, value] : record.items()) {
    if (key != "step") line[key] = value;
  }
  if (is_training) {
    line["tokens"] = tokens_;
    line["input_elements"] = input_elements_;
    line["seconds"] = {{"data", spans_.data},
                       {"forward", spans_.forward},
                       {"backward", spans_.backward},
                       {"reduce", spans_.reduce},
                       {"optimizer", spans_.optimizer}};
    if (!balance.is_null()) line["rank_seconds"] = balance;
    forget();
  }
  if (!file_) file_ = std::make_unique<OutputFile>(path_, OutputFile::Mode::kAppend);  // evaluation without training
  file_->write(line.dump(-1, ' ', false, OrderedJson::error_handler_t::replace) + "\n");
}

OrderedJson LogWriter::rank_seconds() const {
  const double mine = spans_.data + spans_.forward + spans_.backward + spans_.optimizer;
  std::string bytes(sizeof mine, '\0');
  std::memcpy(bytes.data(), &mine, sizeof mine);
  double fastest = mine;
  double slowest = mine;
  double sum = 0;
  for (const std::string& gathered : host_->all_gather("rank_seconds", bytes)) {
    double each = 0;
    std::memcpy(&each, gathered.data(), sizeof each);
    fastest = std::min(fastest, each);
    slowest = std::max(slowest, each);
    sum += each;
  }
  return {{"fastest", fastest}, {"mean", sum / host_->size()}, {"slowest", slowest}};
}

void LogWriter::forget() {
  tokens_ = 0;
  input_elements_ = 0;
  spans_ = {};
}

void LogWriter::on_train_end(const TrainerState&, TrainerControl&) {
  if (!file_) return;
  file_->sync();
  file_->close();
  file_.reset();
}

}  // namespace dtrain
