#include "launcher/prediction_text.h"

#include <algorithm>
#include <cmath>

#include <fmt/ranges.h>

namespace dtrain {
namespace {

// JSON has no NaN and no infinity.
std::string number(double value) {
  return std::isfinite(value) ? fmt::format("{}", static_cast<float>(value)) : "null";
}

std::string list(const std::vector<std::string>& parts) { return fmt::format("[{}]", fmt::join(parts, ",")); }

std::string quoted(const std::string& text) { return Json(text).dump(-1, ' ', false, Json::error_handler_t::replace); }

std::vector<std::string> softmax(std::span<const float> logits) {
  const double largest = static_cast<double>(*std::max_element(logits.begin(), logits.end()));
  double sum = 0;
  for (const float each : logits) sum += std::exp(static_cast<double>(each) - largest);
  std::vector<std::string> scores;
  for (const float each : logits) scores.push_back(number(std::exp(static_cast<double>(each) - largest) / sum));
  return scores;
}

}  // namespace

std::string prediction_text(std::int64_t index, std::span<const float> logits, ProblemType problem,
                            const std::vector<std::string>& names) {
  std::vector<std::string> values;
  switch (problem) {
    case ProblemType::kSingleLabel: {
      const auto best = static_cast<std::size_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
      return fmt::format(R"({{"index":{},"label":{},"label_id":{},"scores":{}}})", index, quoted(names[best]), best,
                         list(softmax(logits)));
    }
    case ProblemType::kMultiLabel: {
      std::vector<std::string> chosen;
      for (std::size_t k = 0; k < logits.size(); ++k) {
        if (logits[k] > 0) chosen.push_back(quoted(names[k]));
        values.push_back(number(1 / (1 + std::exp(-static_cast<double>(logits[k])))));
      }
      return fmt::format(R"({{"index":{},"labels":{},"scores":{}}})", index, list(chosen), list(values));
    }
    case ProblemType::kRegression:
      break;
  }
  for (const float each : logits) values.push_back(number(static_cast<double>(each)));
  if (values.size() == 1) return fmt::format(R"({{"index":{},"value":{}}})", index, values[0]);
  return fmt::format(R"({{"index":{},"values":{}}})", index, list(values));
}

std::string tags_text(std::int64_t index, std::span<const float> logits, const std::vector<std::string>& names) {
  std::vector<std::string> tags;
  for (std::size_t first = 0; first < logits.size(); first += names.size()) {
    const std::span<const float> row = logits.subspan(first, names.size());
    tags.push_back(quoted(names[static_cast<std::size_t>(std::max_element(row.begin(), row.end()) - row.begin())]));
  }
  return fmt::format(R"({{"index":{},"tags":{}}})", index, list(tags));
}

std::vector<std::string> class_names(const Json& model_config) {
  const Json& stored = model_config.at("id2label");
  std::vector<std::string> names(stored.size());
  for (std::size_t i = 0; i < names.size(); ++i) names[i] = stored.at(std::to_string(i)).get<std::string>();
  return names;
}

}  // namespace dtrain
