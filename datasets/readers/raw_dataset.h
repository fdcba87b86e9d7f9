// RawDataset: texts and labels as a file or folder holds them, before tokenising. Plain values.
// read_raw_dataset() reads JSON Lines, CSV, TSV, or one folder per class; each file may be gzip-compressed.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "datasets/label_kind.h"

namespace dtrain {

enum class DataFormat : std::uint8_t { kAuto, kJsonl, kCsv, kTsv, kFolder };
// What an example is made of: a text with its labels, words with a tag each, or a text and the one to write from it.
enum class RecordKind : std::uint8_t { kText, kWords, kPair };
enum class InvalidUtf8 : std::uint8_t { kError, kReplace };

// "auto", "jsonl", "csv", "tsv", "folder". Throws Error(kUsage) for anything else.
[[nodiscard]] DataFormat parse_data_format(std::string_view name);

struct ReaderOptions {
  std::filesystem::path path;
  DataFormat format = DataFormat::kAuto;  // kAuto: a folder, or .jsonl, .csv, .tsv, each also with .gz
  RecordKind record_kind = RecordKind::kText;
  std::string text_column = "text";
  std::string label_column = "label";
  std::string words_column = "tokens";
  std::string tags_column = "ner_tags";
  std::string source_column;
  std::string target_column;
  LabelKind label_kind = LabelKind::kClass;
  std::vector<std::string> class_names;  // in the order of their indices; empty: labels are numbers, folders are sorted
  std::int64_t num_labels = 2;
  bool has_labels = true;  // false: the label column is not read, and every label is 0
  InvalidUtf8 invalid_utf8 = InvalidUtf8::kError;
};

struct RawExample {
  std::string text;
  std::vector<std::string> words;  // kWords
  std::string target;              // kPair
  std::vector<double> labels;      // one class index, or num_labels values
  std::int64_t file = 0;           // index in RawDataset::files
  std::int64_t line = 0;           // first line of the record, from 1; 0 where the file is the record
};

struct RawDataset {
  std::vector<RawExample> examples;
  std::vector<std::string> files;
  std::string source_digest;  // of the bytes that were read, as source_digest() computes it

  // "reviews.jsonl:12", for messages.
  [[nodiscard]] std::string location(std::int64_t index) const;
};

// Throws Error(kData) naming file, line and reason for the first record that cannot be used: not JSON, a column missing
// (the message lists those found), a wrong type, a label out of range, an unknown class, invalid UTF-8, a truncated
// .gz, no examples. Error(kIo) when the path cannot be read; Error(kUsage) when it does not exist or the options
// contradict each other.
[[nodiscard]] RawDataset read_raw_dataset(const ReaderOptions& options);

// Digest of the bytes of the file, or of the names and bytes of all files that the folder reader would read.
[[nodiscard]] std::string source_digest(const ReaderOptions& options);

}  // namespace dtrain
