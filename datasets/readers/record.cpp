#include "datasets/readers/record.h"

#include <algorithm>
#include <cmath>

#include "datasets/tokenizers/unicode.h"

namespace dtrain {
namespace {

std::string label_range(std::int64_t num_labels) { return fmt::format("0 to {}", num_labels - 1); }

double class_of_number(double value, const ReaderOptions& options, const RecordPlace& place) {
  if (value != std::floor(value)) {
    throw place.error(fmt::format("label {} is not a whole number", value),
                      "for real-valued targets set model.problem_type = \"regression\"");
  }
  if (value < 0 || value >= static_cast<double>(options.num_labels)) {
    throw place.error(fmt::format("label {} is out of range: model.num_labels = {} allows {}", value, options.num_labels,
                                  label_range(options.num_labels)),
                      "raise model.num_labels, or correct the label");
  }
  return value;
}

double class_of_word(const std::string& word, const ReaderOptions& options, const RecordPlace& place) {
  const auto& names = options.class_names;
  const auto found = std::find(names.begin(), names.end(), word);
  if (found != names.end()) return static_cast<double>(found - names.begin());
  if (names.empty()) {
    throw place.error(fmt::format("label \"{}\" is a word, and data.labels names no classes", word),
                      "list the class names in data.labels, in the order of their numbers");
  }
  throw place.error(fmt::format("label \"{}\" is none of data.labels: {}", word, join_names(names)),
                    "correct the label, or add the class");
}

}  // namespace

std::string join_names(const std::vector<std::string>& names) {
  std::string joined;
  for (const std::string& name : names) joined += (joined.empty() ? "" : ", ") + name;
  return joined;
}

std::string checked_utf8(std::string_view text, const ReaderOptions& options, const RecordPlace& place) {
  if (unicode::is_valid_utf8(text)) return std::string(text);
  if (options.invalid_utf8 == InvalidUtf8::kReplace) return unicode::replace_invalid_utf8(text);
  throw place.error("invalid UTF-8", "convert the file to UTF-8, or set data.invalid_utf8 = \"replace\"");
}

std::vector<double> checked_label(const RawLabel& label, const ReaderOptions& options, const RecordPlace& place) {
  const auto width = static_cast<std::size_t>(options.num_labels);
  switch (options.label_kind) {
    case LabelKind::kClass:
      if (const auto* number = std::get_if<double>(&label)) return {class_of_number(*number, options, place)};
      if (const auto* word = std::get_if<std::string>(&label)) return {class_of_word(*word, options, place)};
      throw place.error("the label is a list, and the problem has one class per example",
                        "for several labels per example set model.problem_type = \"multi_label_classification\"");
    case LabelKind::kRegression: {
      std::vector<double> values;
      if (const auto* number = std::get_if<double>(&label)) values = {*number};
      if (const auto* list = std::get_if<std::vector<double>>(&label)) values = *list;
      if (values.size() != width) {
        throw place.error(fmt::format("the label must be {} number{}", width, width == 1 ? "" : "s"));
      }
      if (!std::all_of(values.begin(), values.end(), [](double value) { return std::isfinite(value); })) {
        throw place.error("the label is not a finite number");
      }
      return values;
    }
    case LabelKind::kMultiLabel: {
      const auto* list = std::get_if<std::vector<double>>(&label);
      if (list == nullptr || list->size() != width) {
        throw place.error(fmt::format("the label must be a list of {} values, each 0 or 1", width));
      }
      if (!std::all_of(list->begin(), list->end(), [](double value) { return value == 0 || value == 1; })) {
        throw place.error("a value of the label is neither 0 nor 1");
      }
      return *list;
    }
  }
  throw place.error("unknown kind of label");
}

}  // namespace dtrain
