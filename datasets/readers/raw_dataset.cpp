#include "datasets/readers/raw_dataset.h"

#include <algorithm>
#include <array>

#include "core/digest.h"
#include "core/file.h"
#include "datasets/readers/record.h"
#include "datasets/readers/source_bytes.h"

namespace dtrain {
namespace fs = std::filesystem;
namespace {

struct Format {
  std::string_view name;
  DataFormat format;
};
constexpr std::array<Format, 5> kFormats = {{{"auto", DataFormat::kAuto},
                                             {"jsonl", DataFormat::kJsonl},
                                             {"csv", DataFormat::kCsv},
                                             {"tsv", DataFormat::kTsv},
                                             {"folder", DataFormat::kFolder}}};

DataFormat format_of(const ReaderOptions& options) {
  std::error_code code;
  if (!fs::exists(options.path, code)) {
    throw usage_error(fmt::format("no file or folder {}", options.path.string()), "check data.train and data.eval; relative paths start at the current folder");
  }
  const bool folder = fs::is_directory(options.path, code);
  if (options.format != DataFormat::kAuto) {
    if (folder != (options.format == DataFormat::kFolder)) {
      throw usage_error(fmt::format("{} is {}, and data.format says otherwise", options.path.string(), folder ? "a folder" : "a file"));
    }
    return options.format;
  }
  if (folder) return DataFormat::kFolder;
  const fs::path name = options.path.extension() == ".gz" ? options.path.stem() : options.path;
  const std::string extension = name.extension().string();
  if (extension == ".jsonl" || extension == ".json" || extension == ".ndjson") return DataFormat::kJsonl;
  if (extension == ".csv") return DataFormat::kCsv;
  if (extension == ".tsv") return DataFormat::kTsv;
  throw usage_error(fmt::format("{}: the name does not tell the format", options.path.string()), "set data.format to jsonl, csv or tsv");
}

struct ClassFile {
  fs::path path;
  std::int64_t label;
};

// The files of all classes in a fixed order: classes as data.labels lists them or by name, files by name.
std::vector<ClassFile> class_files(const ReaderOptions& options) {
  if (options.label_kind != LabelKind::kClass) {
    throw usage_error(fmt::format("{}: a folder per class gives one class per text", options.path.string()), "use a .jsonl or .csv file");
  }
  std::vector<std::string> names = options.class_names;
  if (names.empty()) {
    for (const auto& entry : fs::directory_iterator(options.path)) {
      if (entry.is_directory()) names.push_back(entry.path().filename().string());
    }
    std::sort(names.begin(), names.end());
  }
  if (static_cast<std::int64_t>(names.size()) != options.num_labels) {
    throw data_error(fmt::format("{} has {} class folders ({}), and model.num_labels = {}", options.path.string(), names.size(), join_names(names),
                                 options.num_labels),
                     "list the class folders to use in data.labels, or change model.num_labels");
  }
  std::vector<ClassFile> files;
  for (std::size_t label = 0; label < names.size(); ++label) {
    const fs::path folder = options.path / names[label];
    if (!fs::is_directory(folder)) throw data_error(fmt::format("{}: no folder for the class \"{}\"", options.path.string(), names[label]));
    std::vector<fs::path> paths;
    for (const auto& entry : fs::directory_iterator(folder)) {
      if (entry.is_regular_file()) paths.push_back(entry.path());
    }
    std::sort(paths.begin(), paths.end());
    for (fs::path& path : paths) files.push_back({std::move(path), static_cast<std::int64_t>(label)});
  }
  return files;
}

RawDataset read_folder(const ReaderOptions& options) {
  RawDataset dataset;
  for (const ClassFile& file : class_files(options)) {
    const auto number = static_cast<std::int64_t>(dataset.files.size());
    dataset.files.push_back(file.path.string());
    RawExample example;
    example.text = checked_utf8(read_source(file.path), options, {dataset.files.back(), 0});
    example.labels = {static_cast<double>(file.label)};
    example.file = number;
    dataset.examples.push_back(std::move(example));
  }
  return dataset;
}

}  // namespace

DataFormat parse_data_format(std::string_view name) {
  for (const Format& known : kFormats) {
    if (known.name == name) return known.format;
  }
  throw usage_error(fmt::format("data.format: \"{}\" is not known", name), "auto, jsonl, csv, tsv or folder");
}

std::string RawDataset::location(std::int64_t index) const {
  const RawExample& example = examples.at(static_cast<std::size_t>(index));
  return RecordPlace{files.at(static_cast<std::size_t>(example.file)), example.line}.text();
}

RawDataset read_raw_dataset(const ReaderOptions& options) {
  const DataFormat format = format_of(options);
  RawDataset dataset;
  if (format == DataFormat::kFolder) {
    dataset = read_folder(options);
  } else {
    dataset.files.push_back(options.path.string());
    const std::string bytes = read_source(options.path);
    if (format == DataFormat::kJsonl) {
      read_jsonl(bytes, options, 0, dataset);
    } else {
      read_separated(bytes, format == DataFormat::kCsv ? ',' : '\t', options, 0, dataset);
    }
  }
  if (dataset.examples.empty()) throw data_error(fmt::format("{}: no examples", options.path.string()), "check that this is the right file");
  dataset.source_digest = source_digest(options);
  return dataset;
}

std::string source_digest(const ReaderOptions& options) {
  if (format_of(options) != DataFormat::kFolder) return digest_of_file(options.path);
  Digest digest;
  for (const ClassFile& file : class_files(options)) {
    const MappedFile content(file.path);
    digest.add(fmt::format("{} {} {} ", file.path.filename().string(), file.label, content.bytes().size())).add(content.bytes());
  }
  return digest.hex();
}

}  // namespace dtrain
