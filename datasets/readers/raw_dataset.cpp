#include "datasets/readers/raw_dataset.h"

#include <algorithm>

#include "core/digest.h"
#include "core/file.h"
#include "datasets/readers/examples.h"
#include "datasets/readers/source_bytes.h"
#include "datasets/readers/source_files.h"

namespace dtrain {
namespace {

// A text file per example, in a folder per class.
void read_class_files(const std::vector<SourceFile>& files, const ReaderOptions& options, RawDataset& dataset) {
  for (const SourceFile& file : files) {
    const auto number = static_cast<std::int64_t>(dataset.files.size());
    dataset.files.push_back(file.path.string());
    const RecordPlace place{dataset.files.back(), 0};
    RawExample example;
    example.text = checked_utf8(read_source(file.path), options, place);
    if (example.text.empty()) throw place.error("the file is empty", "delete it, or fetch it anew");
    example.labels = {static_cast<double>(file.label)};
    example.file = number;
    dataset.examples.push_back(std::move(example));
  }
}

void read_file_of_records(const std::filesystem::path& path, DataFormat format, Examples& examples) {
  examples.begin_file(path.string());
  if (format == DataFormat::kParquet) return read_parquet(path.string(), examples);
  const std::string bytes = read_source(path);
  switch (format) {
    case DataFormat::kJsonl:
      return read_jsonl(bytes, examples);
    case DataFormat::kCsv:
      return read_separated(bytes, ',', examples);
    case DataFormat::kTsv:
      return read_separated(bytes, '\t', examples);
    case DataFormat::kText:
      return read_text_lines(bytes, examples);
    case DataFormat::kConll:
      return read_conll(bytes, examples);
    case DataFormat::kAuto:
    case DataFormat::kFolder:
    case DataFormat::kParquet:
      break;
  }
  DTRAIN_CHECK(false, "data format {}", static_cast<int>(format));
}

// Texts that are empty without exception come from a wrong column.
void check_not_all_empty(const RawDataset& dataset, std::string RawExample::*text, std::string_view what,
                         const ReaderOptions& options) {
  const bool all_empty = std::all_of(dataset.examples.begin(), dataset.examples.end(),
                                     [&](const RawExample& example) { return (example.*text).empty(); });
  if (!all_empty) return;
  throw data_error(fmt::format("{}: all {} {} are empty", options.path.string(), dataset.examples.size(), what),
                   "check the column; " + column_hint(options.record));
}

}  // namespace

std::string RawDataset::location(std::int64_t index) const {
  const RawExample& example = examples.at(static_cast<std::size_t>(index));
  return RecordPlace{files.at(static_cast<std::size_t>(example.file)), example.line, counts_rows}.text();
}

RawDataset read_raw_dataset(const ReaderOptions& options) {
  check_reader_options(options);
  const SourceFiles source = source_files(options);
  RawDataset dataset;
  dataset.counts_rows = source.format == DataFormat::kParquet;
  if (source.format == DataFormat::kFolder) {
    read_class_files(source.files, options, dataset);
  } else {
    Examples examples(options, dataset);
    for (const SourceFile& file : source.files) {
      const std::size_t before = dataset.examples.size();
      read_file_of_records(file.path, source.format, examples);
      if (dataset.examples.size() == before)
        throw data_error(fmt::format("{}: no examples", file.path.string()), "check that this is the right file");
    }
    examples.finish();
  }
  if (options.record != RecordKind::kWords) check_not_all_empty(dataset, &RawExample::text, "texts", options);
  if (options.record == RecordKind::kPair && options.has_labels)
    check_not_all_empty(dataset, &RawExample::target, "targets", options);
  dataset.source_digest = source_digest(options);
  return dataset;
}

std::string source_digest(const ReaderOptions& options) {
  check_reader_options(options);
  const SourceFiles source = source_files(options);
  if (source.format != DataFormat::kFolder && source.files.size() == 1) return digest_of_file(source.files[0].path);
  Digest digest;
  for (const SourceFile& file : source.files) {
    const MappedFile content(file.path);
    digest.add(fmt::format("{} {} {} ", file.path.filename().string(), file.label, content.bytes().size()))
        .add(content.bytes());
  }
  return digest.hex();
}

}  // namespace dtrain
