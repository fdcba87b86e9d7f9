// JSON Lines: one object a line, split at '\n' only (U+0085 and U+2028 may stand inside texts).
#include <optional>

#include <simdjson.h>

#include "datasets/readers/record.h"
#include "datasets/tokenizers/unicode.h"

namespace dtrain {
namespace {

using simdjson::dom::element;

constexpr const char* kOneObject = "one JSON object a line is expected, for example {\"text\": \"...\", \"label\": 1}";

// The column, or the error that lists the columns there are. A name that stands twice has no clear value.
element column_of(const simdjson::dom::object& object, const std::string& name, const RecordPlace& place) {
  std::optional<element> value;
  std::vector<std::string> found;
  for (const auto field : object) {
    found.emplace_back(field.key);
    if (field.key != name) continue;
    if (value) throw place.error(fmt::format("column \"{}\" stands twice in one record", name));
    value = field.value;
  }
  if (value) return *value;
  throw place.error(fmt::format("no column \"{}\"; there are: {}", name, found.empty() ? "none" : join_names(found)),
                    "name the columns with data.text and data.label");
}

std::optional<double> number_of(const element& value) {
  double number = 0;
  if (value.get_double().get(number) == simdjson::SUCCESS) return number;
  bool truth = false;
  if (value.get_bool().get(truth) == simdjson::SUCCESS) return truth ? 1 : 0;
  return std::nullopt;
}

std::optional<std::string> word_of(const element& value) {
  std::string_view word;
  if (value.get_string().get(word) == simdjson::SUCCESS) return std::string(word);
  return std::nullopt;
}

RawLabel label_of(const element& value, const std::string& column, const RecordPlace& place) {
  if (const auto word = word_of(value)) return *word;
  if (const auto number = number_of(value)) return *number;
  simdjson::dom::array list;
  if (value.get_array().get(list) != simdjson::SUCCESS) {
    throw place.error(fmt::format("column \"{}\" is neither a number, nor a word, nor a list of them", column));
  }
  std::vector<double> numbers;
  std::vector<std::string> words;
  for (const element item : list) {
    if (const auto word = word_of(item))
      words.push_back(*word);
    else if (const auto number = number_of(item))
      numbers.push_back(*number);
    else
      throw place.error(fmt::format("the list in column \"{}\" holds something else than numbers or words", column));
  }
  if (!words.empty() && !numbers.empty())
    throw place.error(fmt::format("the list in column \"{}\" mixes numbers and words", column));
  if (words.empty()) return numbers;
  return words;
}

}  // namespace

void read_jsonl(std::string_view bytes, const ReaderOptions& options, std::int64_t file, RawDataset& dataset) {
  simdjson::dom::parser parser;
  LabelReader labels(options);
  bytes = without_byte_order_mark(bytes);
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
    element document;
    if (const auto code = parser.parse(checked).get(document); code != simdjson::SUCCESS) {
      throw place.error(fmt::format("not valid JSON: {}", simdjson::error_message(code)), kOneObject);
    }
    simdjson::dom::object object;
    if (document.get_object().get(object) != simdjson::SUCCESS) throw place.error("not a JSON object", kOneObject);
    std::string_view text;
    if (column_of(object, options.text_column, place).get_string().get(text) != simdjson::SUCCESS) {
      throw place.error(fmt::format("column \"{}\" is not a text", options.text_column), "texts are JSON strings");
    }
    // An escape like \udc00 without its other half is no character, and has no UTF-8.
    if (!unicode::is_valid_utf8(text))
      throw place.error(fmt::format("column \"{}\" holds half a surrogate pair", options.text_column));
    RawExample example;
    example.text = text;
    example.labels =
        options.has_labels
            ? labels.read(label_of(column_of(object, options.label_column, place), options.label_column, place), place)
            : labels.none();
    example.file = file;
    example.line = line_number;
    dataset.examples.push_back(std::move(example));
  }
}

}  // namespace dtrain
