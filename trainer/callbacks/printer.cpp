#include "trainer/callbacks/printer.h"

#include <cstdio>

#include <fmt/format.h>

namespace dtrain {
namespace {

std::string python_text(const OrderedJson& value) {
  if (value.is_number_float()) return fmt::format("'{:.4g}'", value.get<double>());
  if (value.is_boolean()) return value.get<bool>() ? "True" : "False";
  if (value.is_null()) return "None";
  if (value.is_string()) return fmt::format("'{}'", value.get<std::string>());
  return value.dump();
}

}  // namespace

std::string python_line(const OrderedJson& record) {
  std::string line;
  for (const auto& [key, value] : record.items()) {
    if (key == "step" || key == "total_flos") continue;
    line += fmt::format("{}'{}': {}", line.empty() ? "" : ", ", key, python_text(value));
  }
  return "{" + line + "}";
}

void Printer::on_log(const TrainerState& state, TrainerControl&, const OrderedJson& record) {
  if (!state.is_local_process_zero) return;
  fmt::print("{}\n", python_line(record));
  std::fflush(stdout);
}

}  // namespace dtrain
