// JSON Lines: one object a line, split at '\n' only (U+0085 and U+2028 may stand inside texts).
#include <optional>

#include <simdjson.h>

#include "datasets/readers/examples.h"
#include "datasets/tokenizers/unicode.h"

namespace dtrain {
namespace {

using simdjson::dom::element;

constexpr const char* kOneObject = "one JSON object a line is expected, for example {\"text\": \"...\", \"label\": 1}";

// The value under a key. A key that stands twice has no clear value.
std::optional<element> value_of(const simdjson::dom::object& object, std::string_view key, const RecordPlace& place) {
  std::optional<element> value;
  for (const auto field : object) {
    if (field.key != key) continue;
    if (value) throw place.error(fmt::format("column \"{}\" stands twice in one record", key));
    value = field.value;
  }
  return value;
}

// The column, or the error that lists the columns there are. "translation.en" is a key, or "en" in the object
// "translation".
element column_of(simdjson::dom::object object, const std::string& name, const ReaderOptions& options,
                  const RecordPlace& place) {
  std::string_view key = name;
  while (true) {
    if (const auto value = value_of(object, key, place)) return *value;
    const std::size_t dot = key.find('.');
    std::optional<element> outer;
    if (dot != std::string_view::npos) outer = value_of(object, key.substr(0, dot), place);
    if (!outer || outer->get_object().get(object) != simdjson::SUCCESS) break;
    key.remove_prefix(dot + 1);
  }
  const std::string around = name.substr(0, name.size() - key.size());
  std::vector<std::string> found;
  for (const auto field : object) found.push_back(around + std::string(field.key));
  throw place.error(fmt::format("no column \"{}\"; there are: {}", name, found.empty() ? "none" : join_names(found)),
                    column_hint(options.record));
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

class JsonRecord final : public Record {
 public:
  JsonRecord(simdjson::dom::object object, const ReaderOptions& options, const RecordPlace& place)
      : object_(object), options_(options), place_(place) {}

  [[nodiscard]] std::string text(const std::string& column) const override {
    std::string_view text;
    if (column_of(object_, column, options_, place_).get_string().get(text) != simdjson::SUCCESS) {
      throw place_.error(fmt::format("column \"{}\" is not a text", column), "texts are JSON strings");
    }
    return whole(text, column);
  }

  [[nodiscard]] RawLabel label(const std::string& column) const override {
    return label_of(column_of(object_, column, options_, place_), column, place_);
  }

  [[nodiscard]] std::vector<std::string> words(const std::string& column) const override {
    simdjson::dom::array list;
    if (column_of(object_, column, options_, place_).get_array().get(list) != simdjson::SUCCESS) {
      throw place_.error(fmt::format("column \"{}\" is not a list of words", column),
                         "words are JSON strings in a list");
    }
    std::vector<std::string> words;
    for (const element item : list) {
      std::string_view word;
      if (item.get_string().get(word) != simdjson::SUCCESS) {
        throw place_.error(fmt::format("the list in column \"{}\" holds something else than words", column),
                           "words are JSON strings");
      }
      words.push_back(whole(word, column));
    }
    return words;
  }

 private:
  // An escape like \udc00 without its other half is no character, and has no UTF-8.
  [[nodiscard]] std::string whole(std::string_view text, const std::string& column) const {
    if (!unicode::is_valid_utf8(text))
      throw place_.error(fmt::format("column \"{}\" holds half a surrogate pair", column));
    return std::string(text);
  }

  simdjson::dom::object object_;
  const ReaderOptions& options_;
  const RecordPlace& place_;
};

}  // namespace

void read_jsonl(std::string_view bytes, Examples& examples) {
  const ReaderOptions& options = examples.options();
  simdjson::dom::parser parser;
  Lines lines(bytes);
  std::string_view line;
  while (lines.next(line)) {
    const RecordPlace place = examples.place(lines.number());
    if (line.find_first_not_of(" \t") == std::string_view::npos) {
      if (lines.rest().find_first_not_of(" \t\r\n") == std::string_view::npos) break;
      throw place.error("an empty line among the records", "delete it");
    }
    const std::string checked = checked_utf8(line, options, place);
    element document;
    if (const auto code = parser.parse(checked).get(document); code != simdjson::SUCCESS) {
      throw place.error(fmt::format("not valid JSON: {}", simdjson::error_message(code)), kOneObject);
    }
    simdjson::dom::object object;
    if (document.get_object().get(object) != simdjson::SUCCESS) throw place.error("not a JSON object", kOneObject);
    examples.add(JsonRecord(object, options, place), lines.number());
  }
}

}  // namespace dtrain
