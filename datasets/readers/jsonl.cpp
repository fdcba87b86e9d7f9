// JSON Lines: one object a line, split at '\n' only (U+0085 and U+2028 may stand inside texts).
#include <simdjson.h>

#include "datasets/readers/record.h"

namespace dtrain {
namespace {

using simdjson::dom::element;
using simdjson::dom::element_type;

// The column, or the error that lists the columns there are.
element column_of(const simdjson::dom::object& object, const std::string& name, const RecordPlace& place) {
  element value;
  if (object.at_key(name).get(value) == simdjson::SUCCESS) return value;
  std::vector<std::string> found;
  for (const auto field : object) found.emplace_back(field.key);
  throw place.error(fmt::format("no column \"{}\"; there are: {}", name, join_names(found)),
                    "name the columns with data.text and data.label");
}

double number_of(const element& value, const std::string& column, const RecordPlace& place) {
  double number = 0;
  if (value.get_double().get(number) == simdjson::SUCCESS) return number;
  bool truth = false;
  if (value.get_bool().get(truth) == simdjson::SUCCESS) return truth ? 1 : 0;
  throw place.error(fmt::format("column \"{}\" holds neither a number nor a word", column));
}

RawLabel label_of(const element& value, const std::string& column, const RecordPlace& place) {
  std::string_view word;
  if (value.get_string().get(word) == simdjson::SUCCESS) return std::string(word);
  simdjson::dom::array list;
  if (value.get_array().get(list) != simdjson::SUCCESS) return number_of(value, column, place);
  std::vector<double> numbers;
  for (const element item : list) numbers.push_back(number_of(item, column, place));
  return numbers;
}

}  // namespace

void read_jsonl(std::string_view bytes, const ReaderOptions& options, std::int64_t file, RawDataset& dataset) {
  simdjson::dom::parser parser;
  std::int64_t line_number = 0;
  while (!bytes.empty()) {
    const std::size_t end = bytes.find('\n');
    std::string_view line = bytes.substr(0, end);
    bytes.remove_prefix(end == std::string_view::npos ? bytes.size() : end + 1);
    ++line_number;
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    const RecordPlace place{dataset.files[static_cast<std::size_t>(file)], line_number};
    if (line.find_first_not_of(" \t") == std::string_view::npos) {
      if (bytes.find_first_not_of(" \t\r\n") == std::string_view::npos) break;
      throw place.error("an empty line among the records", "delete it");
    }
    const std::string checked = checked_utf8(line, options, place);
    simdjson::dom::element document;
    if (const auto code = parser.parse(checked).get(document); code != simdjson::SUCCESS) {
      throw place.error(fmt::format("not valid JSON: {}", simdjson::error_message(code)), "one JSON object a line is expected");
    }
    simdjson::dom::object object;
    if (document.get_object().get(object) != simdjson::SUCCESS) throw place.error("not a JSON object", "one JSON object a line is expected");
    std::string_view text;
    if (column_of(object, options.text_column, place).get_string().get(text) != simdjson::SUCCESS) {
      throw place.error(fmt::format("column \"{}\" is not a text", options.text_column));
    }
    RawExample example;
    example.text = text;
    example.labels = checked_label(label_of(column_of(object, options.label_column, place), options.label_column, place), options, place);
    example.file = file;
    example.line = line_number;
    dataset.examples.push_back(std::move(example));
  }
}

}  // namespace dtrain
