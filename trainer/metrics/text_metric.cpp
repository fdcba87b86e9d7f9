#include "trainer/metrics/text_metric.h"

#include <algorithm>
#include <limits>

#include "configs/metric_names.h"
#include "core/error.h"
#include "datasets/tokenizers/unicode.h"
#include "trainer/metrics/text_parts.h"

namespace dtrain {
namespace {

bool is_space(char32_t code_point) {
  return (code_point >= 0x1C && code_point <= 0x1F) || (unicode::flags(code_point) & unicode::kWhite) != 0;
}

// state: [equal, all].
class ExactMatch final : public TextMetric {
 public:
  ExactMatch() : TextMetric(2) {}

  [[nodiscard]] std::vector<std::pair<std::string, double>> compute() const override {
    const double value = state_[1] == 0 ? std::numeric_limits<double>::quiet_NaN()
                                        : static_cast<double>(state_[0]) / static_cast<double>(state_[1]);
    return {{"exact_match", value}};
  }

 protected:
  void add_valid(std::string_view prediction, std::span<const std::string_view> references) override {
    state_[0] += std::find(references.begin(), references.end(), prediction) != references.end() ? 1 : 0;
    ++state_[1];
  }
};

}  // namespace

std::vector<std::string_view> split_words(std::string_view text) {
  std::vector<std::string_view> words;
  std::size_t begin = 0;
  for (std::size_t at = 0; at < text.size();) {
    const unicode::Decoded next = unicode::decode_at(text.data() + at);
    if (is_space(next.code_point)) {
      if (at > begin) words.push_back(text.substr(begin, at - begin));
      begin = at + next.size;
    }
    at += next.size;
  }
  if (begin < text.size()) words.push_back(text.substr(begin));
  return words;
}

std::string_view without_trailing_space(std::string_view text) {
  while (!text.empty()) {
    const unicode::Decoded last = unicode::decode_before(text.data() + text.size());
    if (!is_space(last.code_point)) break;
    text.remove_suffix(last.size);
  }
  return text;
}

void TextMetric::add(std::string_view prediction, std::span<const std::string> references) {
  DTRAIN_CHECK(!references.empty(), "a predicted text without a reference");
  std::vector<std::string> repaired;
  repaired.reserve(references.size() + 1);  // views into it stay valid
  const auto valid = [&](std::string_view text) {
    return unicode::is_valid_utf8(text) ? text
                                        : std::string_view(repaired.emplace_back(unicode::replace_invalid_utf8(text)));
  };
  std::vector<std::string_view> valid_references;
  for (const std::string& each : references) valid_references.push_back(valid(each));
  add_valid(valid(prediction), valid_references);
}

void TextMetric::reset() { std::fill(state_.begin(), state_.end(), 0); }

std::unique_ptr<TextMetric> make_text_metric(const std::string& spec) {
  const std::size_t colon = spec.find(':');
  const std::string name = spec.substr(0, colon);
  const MetricName* known = find_metric(name);
  if (known == nullptr || !predicts_texts(name)) {
    throw usage_error(fmt::format("metrics.compute: \"{}\" does not judge texts", spec),
                      fmt::format("use one of {}", metric_names_for(kPredictsTexts)));
  }
  const std::string variant = colon == std::string::npos ? "" : spec.substr(colon + 1);
  if (colon != std::string::npos &&
      std::find(known->variants.begin(), known->variants.end(), variant) == known->variants.end()) {
    throw usage_error(fmt::format("metrics.compute: unknown variant in \"{}\"", spec),
                      known->variants.empty() ? fmt::format("write \"{}\"", name)
                                              : fmt::format("known: {}", fmt::join(known->variants, ", ")));
  }
  if (name == "bleu") return make_bleu(variant);
  if (name == "exact_match") return std::make_unique<ExactMatch>();
  return make_rouge(name);
}

}  // namespace dtrain
