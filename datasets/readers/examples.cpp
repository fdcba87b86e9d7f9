#include "datasets/readers/examples.h"

namespace dtrain {
namespace {

// A tag for each word.
std::vector<double> numbers_of(const RawLabel& label, const std::string& column, TagReader& tags,
                               const RecordPlace& place) {
  std::vector<double> numbers;
  if (const auto* values = std::get_if<std::vector<double>>(&label)) {
    for (const double value : *values) numbers.push_back(tags.read(value, place));
  } else if (const auto* names = std::get_if<std::vector<std::string>>(&label)) {
    for (const std::string& name : *names) numbers.push_back(tags.read(name, place));
  } else {
    throw place.error(fmt::format("column \"{}\" is not a list of tags", column), "one tag per word is expected");
  }
  return numbers;
}

}  // namespace

void Examples::begin_file(const std::string& name) { dataset_.files.push_back(name); }

RecordPlace Examples::place(std::int64_t line) const { return {dataset_.files.back(), line, dataset_.counts_rows}; }

void Examples::append(RawExample example, std::int64_t line) {
  example.file = static_cast<std::int64_t>(dataset_.files.size()) - 1;
  example.line = line;
  dataset_.examples.push_back(std::move(example));
}

void Examples::add_text(std::string text, std::int64_t line) {
  RawExample example;
  example.text = std::move(text);
  example.labels = labels_.none();
  append(std::move(example), line);
}

void Examples::add_words(std::vector<std::string> words, std::vector<double> tags, std::int64_t line) {
  if (words.empty()) throw place(line).error("a sentence without words", "delete the record");
  if (tags.size() != words.size()) {
    throw place(line).error(fmt::format("{} words and {} tags", words.size(), tags.size()),
                            "one tag per word is expected");
  }
  RawExample example;
  example.words = std::move(words);
  example.labels = std::move(tags);
  append(std::move(example), line);
}

void Examples::add(const Record& record, std::int64_t line) {
  RawExample example;
  switch (options_.record) {
    case RecordKind::kText:
      example.text = record.text(options_.text_column);
      example.labels =
          options_.has_labels ? labels_.read(record.label(options_.label_column), place(line)) : labels_.none();
      return append(std::move(example), line);
    case RecordKind::kWords: {
      std::vector<std::string> words = record.words(options_.words_column);
      std::vector<double> tags(words.size());
      if (options_.has_labels && !words.empty()) {
        tags = numbers_of(record.label(options_.tags_column), options_.tags_column, tags_, place(line));
      }
      return add_words(std::move(words), std::move(tags), line);
    }
    case RecordKind::kPair:
      example.text = record.text(options_.source_column);
      if (options_.has_labels) example.target = record.text(options_.target_column);
      return append(std::move(example), line);
  }
  DTRAIN_CHECK(false, "record kind {}", static_cast<int>(options_.record));
}

void Examples::finish() { dataset_.class_names = tags_.finish(dataset_.examples); }

std::vector<std::string> columns_of(const ReaderOptions& options) {
  std::vector<std::string> columns;
  switch (options.record) {
    case RecordKind::kText:
      columns = {options.text_column, options.label_column};
      break;
    case RecordKind::kWords:
      columns = {options.words_column, options.tags_column};
      break;
    case RecordKind::kPair:
      columns = {options.source_column, options.target_column};
      break;
  }
  if (!options.has_labels) columns.pop_back();
  return columns;
}

}  // namespace dtrain
