#include "trainer/checkpoint/trainer_state.h"

#include <utility>

#include "core/file.h"
#include "trainer/checkpoint/json_fields.h"

namespace dtrain {
namespace {

// The file's numbers are only those that JSON knows; nlohmann writes the others as null by itself.
Json control_json(const TrainerControl& control) {
  return {{"args",
           {{"should_epoch_stop", control.should_epoch_stop},
            {"should_evaluate", control.should_evaluate},
            {"should_log", control.should_log},
            {"should_save", control.should_save},
            {"should_training_stop", control.should_training_stop}}},
          {"attributes", Json::object()}};
}

void check_not_negative(const std::string& where, const std::string& key, std::int64_t value) {
  if (value < 0) throw field_error(where, key, "0 or more");
}

}  // namespace

const OrderedJson& TrainerState::add_log(OrderedJson record) {
  record.erase("step");
  record["step"] = global_step;
  log_history.push_back(std::move(record));
  return log_history.back();
}

std::string trainer_state_json(const TrainerState& state) {
  Json history = Json::array();
  for (const OrderedJson& record : state.log_history) history.push_back(Json(record));
  const Json json = {{"best_global_step", json_or_null(state.best_global_step)},
                     {"best_metric", json_or_null(state.best_metric)},
                     {"best_model_checkpoint", json_or_null(state.best_model_checkpoint)},
                     {"epoch", state.epoch},
                     {"eval_steps", state.eval_steps},
                     {"global_step", state.global_step},
                     {"is_hyper_param_search", false},
                     {"is_local_process_zero", state.is_local_process_zero},
                     {"is_world_process_zero", state.is_world_process_zero},
                     {"log_history", std::move(history)},
                     {"logging_steps", state.logging_steps},
                     {"max_steps", state.max_steps},
                     {"num_input_tokens_seen", state.num_input_tokens_seen},
                     {"num_train_epochs", state.num_train_epochs},
                     {"save_steps", state.save_steps},
                     {"stateful_callbacks", {{"TrainerControl", control_json(state.control)}}},
                     {"total_flos", state.total_flos},
                     {"train_batch_size", state.train_batch_size > 0 ? Json(state.train_batch_size) : Json()},
                     {"trial_name", nullptr},
                     {"trial_params", nullptr}};
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

void write_trainer_state(const std::filesystem::path& path, const TrainerState& state) {
  write_file_synced(path, trainer_state_json(state));
}

TrainerState read_trainer_state(const std::filesystem::path& path) {
  const Json json = read_json_file(path);
  const std::string where = path.string();
  if (!json.is_object()) throw data_error(where + ": not a JSON object", "the file is damaged; use another checkpoint");
  TrainerState state;
  read_field(json, "epoch", where, state.epoch);
  for (const auto& [key, target] : {std::pair{"global_step", &state.global_step},
                                    {"max_steps", &state.max_steps},
                                    {"num_train_epochs", &state.num_train_epochs},
                                    {"logging_steps", &state.logging_steps},
                                    {"eval_steps", &state.eval_steps},
                                    {"save_steps", &state.save_steps},
                                    {"train_batch_size", &state.train_batch_size},
                                    {"num_input_tokens_seen", &state.num_input_tokens_seen}}) {
    read_field(json, key, where, *target);
    check_not_negative(where, key, *target);
  }
  read_field(json, "total_flos", where, state.total_flos);
  read_field(json, "best_metric", where, state.best_metric);
  read_field(json, "best_global_step", where, state.best_global_step);
  read_field(json, "best_model_checkpoint", where, state.best_model_checkpoint);
  read_field(json, "is_local_process_zero", where, state.is_local_process_zero);
  read_field(json, "is_world_process_zero", where, state.is_world_process_zero);
  if (const auto history = json.find("log_history"); history != json.end() && !history->is_null()) {
    if (!history->is_array()) throw field_error(where, "log_history", "a list");
    for (const Json& record : *history) {
      if (!record.is_object()) throw field_error(where, "log_history", "a list of objects");
      OrderedJson ordered = OrderedJson::object();
      for (const auto& [key, value] : record.items()) {
        if (key != "step") ordered[key] = OrderedJson(value);
      }
      if (record.contains("step")) ordered["step"] = OrderedJson(record["step"]);
      state.log_history.push_back(std::move(ordered));
    }
  }
  // What the step had still to do when it was saved; absent in states that did not come from a Trainer.
  const Json none = Json::object();
  const Json& callbacks = json.contains("stateful_callbacks") ? json["stateful_callbacks"] : none;
  if (!callbacks.is_object()) throw field_error(where, "stateful_callbacks", "an object");
  if (callbacks.contains("TrainerControl")) {
    const Json& control = callbacks["TrainerControl"];
    if (!control.is_object() || !control.value("args", none).is_object()) {
      throw field_error(where, "TrainerControl", "an object with args");
    }
    const Json arguments = control.value("args", none);
    for (const auto& [key, target] : {std::pair{"should_epoch_stop", &state.control.should_epoch_stop},
                                      {"should_evaluate", &state.control.should_evaluate},
                                      {"should_log", &state.control.should_log},
                                      {"should_save", &state.control.should_save},
                                      {"should_training_stop", &state.control.should_training_stop}}) {
      read_field(arguments, key, where, *target);
    }
  }
  return state;
}

}  // namespace dtrain
