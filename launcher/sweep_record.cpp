#include "launcher/sweep_record.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "configs/setting.h"
#include "core/error.h"
#include "core/file.h"
#include "core/text_table.h"

namespace dtrain {
namespace {

// The number of a point that stands for a setting's value.
double number_of(const SweepParameter& parameter, const Json& value) {
  if (parameter.kind != SweepParameter::Kind::kChoice) return value.get<double>();
  const auto found = std::find(parameter.values.begin(), parameter.values.end(), value);
  if (found == parameter.values.end()) {
    throw data_error(fmt::format("sweep.json: {} has no value {}", parameter.name, value.dump()),
                     "name another training.output_dir");
  }
  return static_cast<double>(found - parameter.values.begin());
}

// A number with a fraction would be cut to what fits, or worse.
std::int64_t whole_number(const Json& object, const char* key, std::int64_t low, std::int64_t high) {
  const Json& value = object.at(key);
  const bool fits =
      value.is_number_integer() && !(value.is_number_unsigned() && value.get<std::uint64_t>() >> 63U != 0);
  if (!fits || value.get<std::int64_t>() < low || value.get<std::int64_t>() > high) {
    throw data_error(
        fmt::format("sweep.json: \"{}\" is {}, expected a whole number from {} to {}", key, value.dump(), low, high),
        "name another training.output_dir");
  }
  return value.get<std::int64_t>();
}

std::string value_text(const SweepParameter& parameter, double number) {
  const Json value = value_of(parameter, number);
  return value.is_number_float() ? fmt::format("{:.6g}", value.get<double>()) : toml_text(value);
}

std::string csv_cell(std::string text) {
  if (text.find_first_of(",\"\n") == std::string::npos) return text;
  for (std::size_t i = 0; (i = text.find('"', i)) != std::string::npos; i += 2) text.insert(i, 1, '"');
  return '"' + text + '"';
}

}  // namespace

std::vector<Observation> SweepRecord::observations() const {
  std::vector<Observation> found;
  for (const Trial& trial : trials) {
    if (trial.state == "done") found.push_back({trial.point, trial.value.value()});
  }
  return found;
}

const Trial* SweepRecord::best(bool maximize) const {
  const Trial* best = nullptr;
  for (const Trial& trial : trials) {
    if (trial.state != "done") continue;
    if (best == nullptr || (maximize ? *trial.value > *best->value : *trial.value < *best->value)) best = &trial;
  }
  return best;
}

std::string trial_name(std::int64_t number) { return fmt::format("trial-{:03}", number); }

Json to_json(const SweepRecord& record, const SweepSettings& sweep) {
  Json trials = Json::array();
  for (const Trial& trial : record.trials) {
    Json values = Json::object();
    for (std::size_t p = 0; p < sweep.space.size(); ++p) {
      values[sweep.space[p].name] = value_of(sweep.space[p], trial.point[p]);
    }
    trials.push_back({{"number", trial.number},
                      {"folder", trial_name(trial.number)},
                      {"state", trial.state},
                      {"values", values},
                      {"value", trial.value ? Json(*trial.value) : Json(nullptr)},
                      {"exit", trial.exit},
                      {"reason", trial.reason},
                      {"seconds", trial.seconds}});
  }
  const Trial* best = record.best(sweep.maximize);
  return {{"sweep", sweep.identity()}, {"trials", trials}, {"best", best == nullptr ? Json() : Json(best->number)}};
}

SweepRecord read_sweep_record(const std::filesystem::path& file, const SweepSettings& sweep) {
  const Json json = read_json_file(file);
  SweepRecord record;
  try {
    const Json& saved = json.at("sweep");
    const Json current = sweep.identity();
    for (const auto& [key, value] : current.items()) {
      if (saved.at(key) == value) continue;
      throw disagree_error(fmt::format("{} is of another sweep: {} is {}, was {}", file.string(), key, value.dump(),
                                       saved.at(key).dump()),
                           "undo the change, or name another training.output_dir");
    }
    for (const Json& each : json.at("trials")) {
      Trial trial;
      trial.number = whole_number(each, "number", 0, std::ssize(record.trials));
      trial.state = each.at("state").get<std::string>();
      for (const SweepParameter& parameter : sweep.space) {
        trial.point.push_back(number_of(parameter, each.at("values").at(parameter.name)));
      }
      if (!each.at("value").is_null()) trial.value = each.at("value").get<double>();
      trial.exit = static_cast<int>(whole_number(each, "exit", -255, 255));
      trial.reason = each.at("reason").get<std::string>();
      trial.seconds = each.at("seconds").get<double>();
      const bool known = trial.state == "running" || trial.state == "failed" || (trial.state == "done" && trial.value);
      if (!known || trial.number != std::ssize(record.trials)) {
        throw data_error(fmt::format("{}: trial {} is not as dtrain wrote it", file.string(), trial.number),
                         "name another training.output_dir");
      }
      record.trials.push_back(std::move(trial));
    }
  } catch (const Json::exception& exception) {
    throw data_error(fmt::format("{} is no record of a sweep: {}", file.string(), exception.what()),
                     "name another training.output_dir");
  }
  return record;
}

std::string to_csv(const SweepRecord& record, const SweepSettings& sweep) {
  std::string text = "trial,state," + sweep.metric;
  for (const SweepParameter& parameter : sweep.space) text += "," + csv_cell(parameter.name);
  text += ",seconds,exit,reason\n";
  for (const Trial& trial : record.trials) {
    text += fmt::format("{},{},{}", trial.number, trial.state, trial.value ? fmt::format("{}", *trial.value) : "");
    for (std::size_t p = 0; p < sweep.space.size(); ++p) {
      const Json value = value_of(sweep.space[p], trial.point[p]);
      text += "," + csv_cell(value.is_string() ? value.get<std::string>() : value.dump());
    }
    text += fmt::format(",{:.1f},{},{}\n", trial.seconds, trial.exit, csv_cell(trial.reason));
  }
  return text;
}

std::string to_table(const SweepRecord& record, const SweepSettings& sweep) {
  std::vector<const Trial*> order;
  for (const Trial& trial : record.trials) order.push_back(&trial);
  std::stable_sort(order.begin(), order.end(), [&](const Trial* a, const Trial* b) {
    if (a->value.has_value() != b->value.has_value()) return a->value.has_value();
    return a->value && (sweep.maximize ? *a->value > *b->value : *a->value < *b->value);
  });
  std::vector<std::vector<std::string>> rows = {{"trial", sweep.metric}};
  for (const SweepParameter& parameter : sweep.space) rows[0].push_back(parameter.name);
  rows[0].emplace_back("seconds");
  for (const Trial* trial : order) {
    std::vector<std::string>& row = rows.emplace_back();
    row = {fmt::format("{}", trial->number), trial->value ? fmt::format("{:.4f}", *trial->value) : trial->state};
    for (std::size_t p = 0; p < sweep.space.size(); ++p) row.push_back(value_text(sweep.space[p], trial->point[p]));
    row.push_back(fmt::format("{:.1f}", trial->seconds));
  }
  const std::vector<std::size_t> widths = column_widths(rows);
  const Trial* best = record.best(sweep.maximize);
  std::string text;
  for (std::size_t line = 0; line < rows.size(); ++line) {
    text += right_aligned(rows[line], widths);
    if (line > 0 && order[line - 1] == best) text += "  best";
    if (line > 0 && !order[line - 1]->reason.empty()) text += "  " + order[line - 1]->reason;
    text += "\n";
  }
  return text;
}

std::string point_text(const SweepSettings& sweep, const Point& point) {
  std::vector<std::string> items;
  for (std::size_t p = 0; p < sweep.space.size(); ++p) {
    items.push_back(fmt::format("{} = {}", sweep.space[p].name, value_text(sweep.space[p], point[p])));
  }
  return fmt::format("{}", fmt::join(items, ", "));
}

}  // namespace dtrain
