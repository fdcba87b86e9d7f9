#include "trainer/callbacks/callback.h"

namespace dtrain {

void CallbackList::on_init_end(const TrainerState& state, TrainerControl& control) {
  for (const auto& member : members_) member->on_init_end(state, control);
}
void CallbackList::on_train_begin(const TrainerState& state, TrainerControl& control) {
  for (const auto& member : members_) member->on_train_begin(state, control);
}
void CallbackList::on_train_end(const TrainerState& state, TrainerControl& control) {
  for (const auto& member : members_) member->on_train_end(state, control);
}
void CallbackList::on_epoch_begin(const TrainerState& state, TrainerControl& control) {
  for (const auto& member : members_) member->on_epoch_begin(state, control);
}
void CallbackList::on_epoch_end(const TrainerState& state, TrainerControl& control) {
  for (const auto& member : members_) member->on_epoch_end(state, control);
}
void CallbackList::on_step_begin(const TrainerState& state, TrainerControl& control) {
  for (const auto& member : members_) member->on_step_begin(state, control);
}
void CallbackList::on_substep_end(const TrainerState& state, TrainerControl& control) {
  for (const auto& member : members_) member->on_substep_end(state, control);
}
void CallbackList::on_pre_optimizer_step(const TrainerState& state, TrainerControl& control) {
  for (const auto& member : members_) member->on_pre_optimizer_step(state, control);
}
void CallbackList::on_optimizer_step(const TrainerState& state, TrainerControl& control) {
  for (const auto& member : members_) member->on_optimizer_step(state, control);
}
void CallbackList::on_step_end(const TrainerState& state, TrainerControl& control, const StepReport& report) {
  for (const auto& member : members_) member->on_step_end(state, control, report);
}
void CallbackList::on_log(const TrainerState& state, TrainerControl& control, const OrderedJson& record) {
  for (const auto& member : members_) member->on_log(state, control, record);
}
void CallbackList::on_prediction_step(const TrainerState& state, TrainerControl& control, std::int64_t done,
                                      std::int64_t total) {
  for (const auto& member : members_) member->on_prediction_step(state, control, done, total);
}
void CallbackList::on_evaluate(const TrainerState& state, TrainerControl& control, const OrderedJson& metrics) {
  for (const auto& member : members_) member->on_evaluate(state, control, metrics);
}
void CallbackList::on_predict(const TrainerState& state, TrainerControl& control, const OrderedJson& metrics) {
  for (const auto& member : members_) member->on_predict(state, control, metrics);
}
void CallbackList::on_save(const TrainerState& state, TrainerControl& control,
                           const std::filesystem::path& checkpoint) {
  for (const auto& member : members_) member->on_save(state, control, checkpoint);
}
void CallbackList::on_push_begin(const TrainerState& state, TrainerControl& control) {
  for (const auto& member : members_) member->on_push_begin(state, control);
}

}  // namespace dtrain
