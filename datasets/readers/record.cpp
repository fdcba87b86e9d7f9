#include "datasets/readers/record.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "datasets/tokenizers/unicode.h"

namespace dtrain {
namespace {

double class_of_number(double value, const ReaderOptions& options, const RecordPlace& place) {
  if (value != std::floor(value)) {
    throw place.error(fmt::format("label {} is not a whole number", value),
                      options.record == RecordKind::kWords
                          ? "tags are whole numbers or names"
                          : "for real-valued targets set model.problem_type = \"regression\"");
  }
  if (!(value >= 0 && value < static_cast<double>(options.num_labels))) {
    throw place.error(fmt::format("label {} is out of range: model.num_labels = {} allows 0 to {}", value,
                                  options.num_labels, options.num_labels - 1),
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

// The tensor of such a label is float32.
bool is_float(double value) { return std::abs(value) <= static_cast<double>(std::numeric_limits<float>::max()); }

}  // namespace

std::string join_names(const std::vector<std::string>& names) {
  std::string joined;
  for (const std::string& name : names) joined += (joined.empty() ? "" : ", ") + name;
  return joined;
}

std::string_view without_byte_order_mark(std::string_view bytes) {
  constexpr std::string_view kMark = "\xEF\xBB\xBF";
  if (bytes.starts_with(kMark)) bytes.remove_prefix(kMark.size());
  return bytes;
}

void check_reader_options(const ReaderOptions& options) {
  if (options.num_labels < 1) throw usage_error(fmt::format("model.num_labels is {}", options.num_labels), "1 or more");
  const auto& names = options.class_names;
  if (!names.empty() && static_cast<std::int64_t>(names.size()) != options.num_labels) {
    throw usage_error(
        fmt::format("data.labels names {} classes, and model.num_labels = {}", names.size(), options.num_labels),
        "leave model.num_labels out, or make them equal");
  }
  if (std::set<std::string>(names.begin(), names.end()).size() != names.size()) {
    throw usage_error(fmt::format("data.labels names a class twice: {}", join_names(names)));
  }
  if (options.record == RecordKind::kPair) {
    if (options.source_column.empty() || (options.has_labels && options.target_column.empty())) {
      throw usage_error("pairs of texts need the names of their columns", column_hint(options.record));
    }
    if (options.has_labels && options.source_column == options.target_column) {
      throw usage_error(fmt::format("source and target are the same column \"{}\"", options.source_column),
                        column_hint(options.record));
    }
  }
}

std::string checked_utf8(std::string_view text, const ReaderOptions& options, const RecordPlace& place) {
  if (text.find('\0') != std::string_view::npos) {
    throw place.error("a zero byte, which text files do not have",
                      "convert the file to UTF-8: is it UTF-16, or not a text?");
  }
  if (unicode::is_valid_utf8(text)) return std::string(text);
  if (options.invalid_utf8 == InvalidUtf8::kReplace) return unicode::replace_invalid_utf8(text);
  throw place.error("invalid UTF-8", "convert the file to UTF-8, or set data.invalid_utf8 = \"replace\"");
}

std::vector<double> LabelReader::read(const RawLabel& label, const RecordPlace& place) {
  const auto* number = std::get_if<double>(&label);
  switch (options_.label_kind) {
    case LabelKind::kClass:
      if (number != nullptr) return {class_of_number(*number, options_, place)};
      if (const auto* word = std::get_if<std::string>(&label)) return {class_of_word(*word, options_, place)};
      throw place.error("the label is a list, and the problem has one class per example",
                        "for several labels per example set model.problem_type = \"multi_label_classification\"");
    case LabelKind::kRegression: {
      std::vector<double> values;
      if (number != nullptr) values = {*number};
      if (const auto* list = std::get_if<std::vector<double>>(&label)) values = *list;
      if (static_cast<std::int64_t>(values.size()) != options_.num_labels) {
        throw place.error(options_.num_labels == 1
                              ? "the label is not a number"
                              : fmt::format("the label is not a list of {} numbers", options_.num_labels),
                          "regression needs model.num_labels numbers");
      }
      if (!std::all_of(values.begin(), values.end(), is_float))
        throw place.error("the label is not a finite 32-bit number");
      return values;
    }
    case LabelKind::kMultiLabel:
      return read_list(label, place);
  }
  DTRAIN_CHECK(false, "label kind {}", static_cast<int>(options_.label_kind));
}

std::vector<double> LabelReader::read_list(const RawLabel& label, const RecordPlace& place) {
  const auto width = static_cast<std::size_t>(options_.num_labels);
  const auto* numbers = std::get_if<std::vector<double>>(&label);
  const auto* words = std::get_if<std::vector<std::string>>(&label);
  if (numbers == nullptr && words == nullptr) {
    throw place.error(
        "the label is not a list",
        fmt::format("multi-label problems need {} values of 0 or 1, or the list of the classes that apply", width));
  }
  const bool flags =
      numbers != nullptr && numbers->size() == width &&
      std::all_of(numbers->begin(), numbers->end(), [](double value) { return value == 0 || value == 1; });
  const ListForm form = flags ? ListForm::kFlags : ListForm::kClasses;
  if (form_ == ListForm::kUnknown) form_ = form;
  if (form != form_) {
    throw place.error(fmt::format("the label is {}, and the records before have {}",
                                  flags ? fmt::format("a list of {} values of 0 or 1", width) : "a list of classes",
                                  flags ? "lists of classes" : fmt::format("{} values, each 0 or 1", width)),
                      "use one of the two forms in the whole file");
  }
  if (flags) return *numbers;

  std::vector<double> classes;
  if (numbers != nullptr) {
    for (const double value : *numbers) classes.push_back(class_of_number(value, options_, place));
  } else {
    for (const std::string& word : *words) classes.push_back(class_of_word(word, options_, place));
  }
  std::vector<double> values(width, 0.0);
  for (const double index : classes) {
    double& value = values[static_cast<std::size_t>(index)];
    if (value != 0) throw place.error(fmt::format("the label lists class {} twice", index));
    value = 1;
  }
  return values;
}

double TagReader::read(double tag, const RecordPlace& place) {
  if (!found_.empty()) {
    throw place.error(fmt::format("tag {} is a number, and the tags before are names", tag),
                      "use numbers or names in the whole data set, or list the names in data.labels");
  }
  has_numbers_ = true;
  return class_of_number(tag, options_, place);
}

double TagReader::read(const std::string& tag, const RecordPlace& place) {
  if (!options_.class_names.empty()) return class_of_word(tag, options_, place);
  if (has_numbers_) {
    throw place.error(fmt::format("tag \"{}\" is a name, and the tags before are numbers", tag),
                      "use numbers or names in the whole data set, or list the names in data.labels");
  }
  return static_cast<double>(found_.try_emplace(tag, found_.size()).first->second);
}

std::vector<std::string> TagReader::finish(std::vector<RawExample>& examples) const {
  std::vector<std::string> names;
  names.reserve(found_.size());
  for (const auto& [name, number] : found_) names.push_back(name);
  const auto outside = std::find(names.begin(), names.end(), "O");
  if (outside != names.end()) std::rotate(names.begin(), outside, outside + 1);
  std::vector<double> index_of(names.size());
  for (std::size_t index = 0; index < names.size(); ++index)
    index_of[found_.at(names[index])] = static_cast<double>(index);
  if (names.empty()) return names;
  for (RawExample& example : examples) {
    for (double& label : example.labels) label = index_of[static_cast<std::size_t>(label)];
  }
  return names;
}

bool Lines::next(std::string_view& line) {
  if (rest_.empty()) return false;
  const std::size_t end = rest_.find('\n');
  line = rest_.substr(0, end);
  rest_.remove_prefix(end == std::string_view::npos ? rest_.size() : end + 1);
  ++number_;
  if (line.ends_with('\r')) line.remove_suffix(1);
  return true;
}

std::string column_hint(RecordKind kind) {
  switch (kind) {
    case RecordKind::kText:
      return "name the columns with data.text and data.label";
    case RecordKind::kWords:
      return "name the columns with data.words and data.tags";
    case RecordKind::kPair:
      return "name the columns with data.source and data.target";
  }
  DTRAIN_CHECK(false, "record kind {}", static_cast<int>(kind));
}

}  // namespace dtrain
