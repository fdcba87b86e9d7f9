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

// Checks `text`, or repairs it (one U+FFFD for each maximal invalid part) when the options allow it.
[[nodiscard]] std::string checked_utf8(std::string_view text, const ReaderOptions& options, const RecordPlace& place);

// A label as it was found: a number, a word, or a list of numbers.
using RawLabel = std::variant<double, std::string, std::vector<double>>;

// The label in the form of RawExample::labels; throws the record's error when it does not fit the options.
[[nodiscard]] std::vector<double> checked_label(const RawLabel& label, const ReaderOptions& options, const RecordPlace& place);

// One reader per format: appends the examples of one file.
void read_jsonl(std::string_view bytes, const ReaderOptions& options, std::int64_t file, RawDataset& dataset);
void read_separated(std::string_view bytes, char separator, const ReaderOptions& options, std::int64_t file, RawDataset& dataset);

[[nodiscard]] std::string join_names(const std::vector<std::string>& names);

}  // namespace dtrain
