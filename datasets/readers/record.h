// What the readers share: where a record is, how its text is checked, and how its label becomes numbers.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "core/error.h"
#include "datasets/readers/raw_dataset.h"

namespace dtrain {

struct RecordPlace {
  const std::string& file;
  std::int64_t line;  // 0: the file is the record

  [[nodiscard]] std::string text() const { return line > 0 ? fmt::format("{}:{}", file, line) : file; }
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

// Turns labels into the form of RawExample::labels. One object per file: several labels per example are either
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

// One reader per format: appends the examples of one file.
void read_jsonl(std::string_view bytes, const ReaderOptions& options, std::int64_t file, RawDataset& dataset);
void read_separated(std::string_view bytes, char separator, const ReaderOptions& options, std::int64_t file,
                    RawDataset& dataset);

[[nodiscard]] std::string join_names(const std::vector<std::string>& names);

}  // namespace dtrain
