// RawDataset: the records of input files before tokenising: texts with labels, sentences of tagged words, or pairs of
// texts. Plain values.
// read_raw_dataset() reads JSON Lines, CSV, TSV, plain text and CoNLL columns (each file may be gzip-compressed),
// Parquet, or one folder per class.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "datasets/label_kind.h"

namespace dtrain {

enum class DataFormat : std::uint8_t { kAuto, kJsonl, kCsv, kTsv, kFolder, kText, kConll, kParquet };
enum class InvalidUtf8 : std::uint8_t { kError, kReplace };
// kText: a text and its label. kWords: the words of a sentence and a tag for each. kPair: a text and the text to make
// of it (translation, summary).
enum class RecordKind : std::uint8_t { kText, kWords, kPair };

// "auto", "jsonl", "csv", "tsv", "folder", "text", "conll", "parquet". Throws Error(kUsage) for anything else.
[[nodiscard]] DataFormat parse_data_format(std::string_view name);

// Whether Parquet can be read: libdtrain_parquet.so is there (CMake option DTRAIN_PARQUET).
[[nodiscard]] bool has_parquet();

// Columns of JSON Lines and Parquet may lie inside objects: "translation.en" is "en" of the object "translation".
struct ReaderOptions {
  // A file, a folder with a folder per class, a pattern of glob(7) ("data/train-*.parquet"; files sorted by name), or
  // either of the last in a data set of the Hugging Face cache ("hf://datasets/user/name/data/train-*.parquet").
  std::filesystem::path path;
  // kAuto: a folder; else by name: .jsonl .json .ndjson, .csv, .tsv, .txt, .conll .bio .iob2 (each also with .gz) or
  // .parquet.
  DataFormat format = DataFormat::kAuto;
  std::string text_column = "text";
  std::string label_column = "label";
  LabelKind label_kind = LabelKind::kClass;
  std::vector<std::string> class_names;  // in the order of their indices; empty: labels are numbers, folders are sorted
  std::int64_t num_labels = 2;
  bool has_labels = true;  // false: labels, tags and targets are not read, and every label or tag is 0
  InvalidUtf8 invalid_utf8 = InvalidUtf8::kError;
  std::vector<std::filesystem::path> more_paths = {};  // files and patterns that follow `path`, of the same format
  RecordKind record = RecordKind::kText;
  std::string words_column = "tokens";   // kWords: a list of words
  std::string tags_column = "ner_tags";  // kWords: a list of as many numbers or names
  std::string source_column = {};        // kPair
  std::string target_column = {};        // kPair
};

struct RawExample {
  std::string text;                // kPair: the source; kWords: empty
  std::vector<double> labels;      // kText: one class index, or num_labels values; kWords: a tag for each word
  std::int64_t file = 0;           // index in RawDataset::files
  std::int64_t line = 0;           // first line of the record, or its row, from 1; 0 where the file is the record
  std::vector<std::string> words;  // kWords only: at least one
  std::string target;              // kPair with labels only
};

struct RawDataset {
  std::vector<RawExample> examples;
  std::vector<std::string> files;
  std::string source_digest;  // of the bytes that were read, as source_digest() computes it
  // The names of the tags, when ReaderOptions::class_names gives none and the tags of kWords are names: sorted by
  // bytes, "O" first. RawExample::labels are indices in it; num_labels plays no part then.
  std::vector<std::string> class_names;
  bool counts_rows = false;  // RawExample::line counts rows of Parquet files

  // "reviews.jsonl:12" or "reviews.parquet: row 12", for messages.
  [[nodiscard]] std::string location(std::int64_t index) const;
};

// Throws Error(kData) naming file, line (row in Parquet) and reason for the first record that cannot be used: not JSON,
// a column missing (the message lists those found), a wrong type, a null, a label out of range, an unknown class, a
// sentence without words, another number of tags than of words, invalid UTF-8, a truncated .gz or .parquet, no
// examples. Error(kIo) when a path cannot be read; Error(kUsage) when it does not exist, a pattern matches nothing,
// files differ in format, the format cannot hold such records, or the options contradict each other.
[[nodiscard]] RawDataset read_raw_dataset(const ReaderOptions& options);

// Digest of the bytes of the file, or of the names and bytes of all files when there are several.
[[nodiscard]] std::string source_digest(const ReaderOptions& options);

}  // namespace dtrain
