// scores_of CASES.jsonl: for each line and each of its "metrics" the values, as a JSON list of lists (null: NaN). A
// line has "predictions" and "references" (texts), or "labels" (names) and "predicted" and "truth" (indices, by
// sentence). Its examples are dealt to as many metrics as "parts" says, whose states are added up as those of ranks
// are.
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include "configs/metric_names.h"
#include "core/error.h"
#include "core/json.h"
#include "trainer/metrics/metric.h"
#include "trainer/metrics/text_metric.h"

namespace dtrain {
namespace {

using Values = std::vector<std::pair<std::string, double>>;

Json listed(const Values& values) {
  Json list = Json::array();
  for (const auto& [name, value] : values) list.push_back(value);
  return list;
}

void add_to(std::vector<std::int64_t>& sum, const std::vector<std::int64_t>& part) {
  DTRAIN_CHECK(sum.size() == part.size(), "states of {} and {} words", sum.size(), part.size());
  for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += part[i];
}

Values text_values(const std::string& spec, const Json& line, std::size_t parts) {
  const auto whole = make_text_metric(spec);
  for (std::size_t part = 0; part < parts; ++part) {
    const auto metric = make_text_metric(spec);
    for (std::size_t i = part; i < line.at("predictions").size(); i += parts) {
      metric->add(line.at("predictions")[i].get<std::string>(),
                  line.at("references")[i].get<std::vector<std::string>>());
    }
    add_to(whole->state(), metric->state());
  }
  return whole->compute();
}

Values tag_values(const std::string& spec, const Json& line, std::size_t parts) {
  const auto names = line.at("labels").get<std::vector<std::string>>();
  const auto labels = static_cast<std::int64_t>(names.size());
  const MetricScope scope = {.num_labels = labels, .tag_names = names};
  const auto whole = make_metric(spec, scope);
  for (std::size_t part = 0; part < parts; ++part) {
    const auto metric = make_metric(spec, scope);
    std::vector<std::int64_t> predicted;
    std::vector<std::int64_t> truth;
    std::vector<std::int64_t> lengths;
    for (std::size_t i = part; i < line.at("truth").size(); i += parts) {
      for (const std::int64_t tag : line.at("predicted")[i]) predicted.push_back(tag);
      for (const std::int64_t tag : line.at("truth")[i]) truth.push_back(tag);
      lengths.push_back(static_cast<std::int64_t>(line.at("truth")[i].size()));
    }
    const auto tokens = static_cast<std::int64_t>(truth.size());
    const at::Tensor logits = at::zeros({tokens, labels});
    for (std::int64_t i = 0; i < tokens; ++i) {
      logits.mutable_data_ptr<float>()[i * labels + predicted[static_cast<std::size_t>(i)]] = 1;
    }
    // Without labels there is no batch: no lengths would mean one label each.
    if (!lengths.empty()) metric->add({.logits = logits, .labels = at::tensor(truth), .label_counts = lengths});
    add_to(whole->state().counts, metric->state().counts);
  }
  return whole->compute();
}

int run(const std::string& cases) {
  std::ifstream lines(cases);
  for (std::string text; std::getline(lines, text);) {
    const Json line = parse_json(text, cases);
    const std::size_t parts = line.value("parts", 1);
    Json values = Json::array();
    for (const std::string spec : line.at("metrics")) {
      values.push_back(listed(predicts_texts(spec) ? text_values(spec, line, parts) : tag_values(spec, line, parts)));
    }
    fmt::print("{}\n", values.dump());
  }
  return 0;
}

}  // namespace
}  // namespace dtrain

int main(int argc, char** argv) {
  if (argc != 2) return 64;
  try {
    return dtrain::run(argv[1]);
  } catch (const dtrain::Error& error) {
    fmt::print(stderr, "error: {}\n", error.what());
    return static_cast<int>(error.code());
  }
}
