// Examples: makes RawExamples of the records that the readers of all formats find.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "datasets/readers/record.h"

namespace dtrain {

// One record of a file, whatever the format: what stands under the name of a column. Every function throws the
// record's error when there is no such column, or when it holds something else.
class Record {
 public:
  virtual ~Record() = default;
  [[nodiscard]] virtual std::string text(const std::string& column) const = 0;  // valid UTF-8, as the words below
  [[nodiscard]] virtual RawLabel label(const std::string& column) const = 0;
  [[nodiscard]] virtual std::vector<std::string> words(const std::string& column) const = 0;
};

// Appends to a RawDataset. One object for all files of a data set.
class Examples {
 public:
  Examples(const ReaderOptions& options, RawDataset& dataset)
      : options_(options), dataset_(dataset), labels_(options), tags_(options) {}

  // The records that follow are of this file.
  void begin_file(const std::string& name);
  // Line or row `line` of the file.
  [[nodiscard]] RecordPlace place(std::int64_t line) const;
  [[nodiscard]] const ReaderOptions& options() const { return options_; }

  void add(const Record& record, std::int64_t line);
  // A text of its own (kText), or words with the numbers that tags() gave (kWords): what formats without columns have.
  void add_text(std::string text, std::int64_t line);
  void add_words(std::vector<std::string> words, std::vector<double> tags, std::int64_t line);
  [[nodiscard]] TagReader& tags() { return tags_; }

  // After the last file: gives the data set the names of the tags, when the data defines them.
  void finish();

 private:
  void append(RawExample example, std::int64_t line);

  const ReaderOptions& options_;
  RawDataset& dataset_;
  LabelReader labels_;
  TagReader tags_;
};

// The columns that examples of these options are made of.
[[nodiscard]] std::vector<std::string> columns_of(const ReaderOptions& options);

// One reader per format: adds the records of one file, whose bytes these are. read_parquet() reads the file itself.
void read_jsonl(std::string_view bytes, Examples& examples);
void read_separated(std::string_view bytes, char separator, Examples& examples);
void read_text_lines(std::string_view bytes, Examples& examples);
void read_conll(std::string_view bytes, Examples& examples);
void read_parquet(const std::string& file, Examples& examples);

}  // namespace dtrain
