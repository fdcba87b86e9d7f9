// What the readers share: where a record is, how its text is checked, and how its label or tags become numbers.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "core/error.h"
#include "datasets/readers/raw_dataset.h"

namespace dtrain {

struct RecordPlace {
  const std::string& file;
  std::int64_t line;    // 0: the file is the record
  bool is_row = false;  // `line` counts rows, not lines

  [[nodiscard]] std::string text() const {
    if (line <= 0) return file;
    return is_row ? fmt::format("{}: row {}", file, line) : fmt::format("{}:{}", file, line);
  }
  [[nodiscard]] Error error(const std::string& reason, std::string hint = {}) const {
    return data_error(fmt::format("{}: {}", text(), reason), std::move(hint));
  }
};

// A byte order mark in front of a file is no part of its first record.
[[nodiscard]] std::string_view without_byte_order_mark(std::string_view bytes);

// The options that do not fit each other, whatever the data. Throws Error(kUsage).
void check_reader_options(const ReaderOptions& options);

// Checks `text`, or repairs it (one U+FFFD for each maximal invalid part) when the options allow it.
[[nodiscard]] std::string checked_utf8(std::string_view text, const ReaderOptions& options, const RecordPlace& place);

// A label as it was found: a number, a word, or a list of them.
using RawLabel = std::variant<double, std::string, std::vector<double>, std::vector<std::string>>;

// Turns labels into the form of RawExample::labels. One object per data set: several labels per example are either
// num_labels values of 0 or 1 in every record, or the list of the classes that apply (numbers or names) in every
// record.
class LabelReader {
 public:
  explicit LabelReader(const ReaderOptions& options) : options_(options) {}
  // Throws the record's error when the label does not fit the options.
  [[nodiscard]] std::vector<double> read(const RawLabel& label, const RecordPlace& place);
  // Of data without labels.
  [[nodiscard]] std::vector<double> none() const {
    return std::vector<double>(
        options_.label_kind == LabelKind::kClass ? 1 : static_cast<std::size_t>(options_.num_labels));
  }

 private:
  enum class ListForm : std::uint8_t { kUnknown, kFlags, kClasses };
  [[nodiscard]] std::vector<double> read_list(const RawLabel& label, const RecordPlace& place);

  const ReaderOptions& options_;
  ListForm form_ = ListForm::kUnknown;
};

// Turns the tags of words into numbers. One object per data set: without class names, names are collected.
class TagReader {
 public:
  explicit TagReader(const ReaderOptions& options) : options_(options) {}
  // The class of a tag; where names are collected, a number that finish() replaces. Throws the place's error.
  [[nodiscard]] double read(double tag, const RecordPlace& place);
  [[nodiscard]] double read(const std::string& tag, const RecordPlace& place);
  // The names collected, "O" first and the others sorted; the labels of `examples` become indices in it. Empty, with
  // the labels as they are, where no names were collected.
  [[nodiscard]] std::vector<std::string> finish(std::vector<RawExample>& examples) const;

 private:
  const ReaderOptions& options_;
  bool has_numbers_ = false;
  std::map<std::string, std::size_t> found_;  // numbered as they came
};

// The lines of a text, without their ends ("\n" or "\r\n").
class Lines {
 public:
  explicit Lines(std::string_view bytes) : rest_(without_byte_order_mark(bytes)) {}
  // False at the end; a line end at the very end begins no further line.
  [[nodiscard]] bool next(std::string_view& line);
  [[nodiscard]] std::int64_t number() const { return number_; }  // of the line last given, from 1
  [[nodiscard]] std::string_view rest() const { return rest_; }

 private:
  std::string_view rest_;
  std::int64_t number_ = 0;
};

[[nodiscard]] std::string join_names(const std::vector<std::string>& names);

// Which settings name the columns, for the hints of messages about columns.
[[nodiscard]] std::string column_hint(RecordKind kind);

}  // namespace dtrain
