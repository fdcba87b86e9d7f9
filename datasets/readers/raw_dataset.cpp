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
    throw usage_error(fmt::format("no file or folder {}", options.path.string()),
                      "check data.train and data.eval; relative paths start at the current folder");
  }
  const bool folder = fs::is_directory(options.path, code);
  if (options.format != DataFormat::kAuto) {
    if (folder != (options.format == DataFormat::kFolder)) {
      throw usage_error(fmt::format("{} is {}, and data.format says otherwise", options.path.string(),
                                    folder ? "a folder" : "a file"));
    }
    return options.format;
  }
  if (folder) return DataFormat::kFolder;
  const fs::path name = options.path.extension() == ".gz" ? options.path.stem() : options.path;
  const std::string extension = name.extension().string();
  if (extension == ".jsonl" || extension == ".json" || extension == ".ndjson") return DataFormat::kJsonl;
  if (extension == ".csv") return DataFormat::kCsv;
  if (extension == ".tsv") return DataFormat::kTsv;
  throw usage_error(fmt::format("{}: the name does not tell the format", options.path.string()),
                    "set data.format to jsonl, csv or tsv");
}

struct ClassFile {
  fs::path path;
  std::int64_t label;
};

// The entries of a folder by name, without hidden ones.
std::vector<fs::path> entries_of(const fs::path& folder) {
  std::vector<fs::path> paths;
  std::error_code code;
  for (fs::directory_iterator entry(folder, code), end; !code && entry != end; entry.increment(code)) {
    if (!entry->path().filename().string().starts_with('.')) paths.push_back(entry->path());
  }
  if (code) throw system_error(fmt::format("cannot read the folder {}", folder.string()), code.value());
  std::sort(paths.begin(), paths.end());
  return paths;
}

bool is_text_file(const fs::path& path) {
  return path.extension() == ".txt" || (path.extension() == ".gz" && path.stem().extension() == ".txt");
}

// The files of all classes in a fixed order: classes as data.labels lists them or by name, files by name. Files beside
// the class folders are no examples (aclImdb has lists of addresses there).
std::vector<ClassFile> class_files(const ReaderOptions& options) {
  const std::string where = options.path.string();
  if (options.label_kind != LabelKind::kClass) {
    throw usage_error(fmt::format("{}: a folder per class gives one class per text", where),
                      "use a .jsonl or .csv file");
  }
  std::vector<std::string> found;
  for (const fs::path& path : entries_of(options.path)) {
    if (fs::is_directory(path)) found.push_back(path.filename().string());
  }
  const std::vector<std::string>& names = options.class_names.empty() ? found : options.class_names;
  if (static_cast<std::int64_t>(names.size()) != options.num_labels) {
    throw data_error(fmt::format("{} has {} class folders ({}), and model.num_labels = {}", where, found.size(),
                                 found.empty() ? "none" : join_names(found), options.num_labels),
                     "list the class folders to use in data.labels, or change model.num_labels");
  }
  std::vector<ClassFile> files;
  for (std::size_t label = 0; label < names.size(); ++label) {
    if (std::find(found.begin(), found.end(), names[label]) == found.end()) {
      throw data_error(fmt::format("{}: no folder for the class \"{}\"; there are: {}", where, names[label],
                                   found.empty() ? "none" : join_names(found)),
                       "correct data.labels");
    }
    const std::size_t before = files.size();
    for (fs::path& path : entries_of(options.path / names[label])) {
      if (!is_text_file(path)) {
        throw data_error(fmt::format("{}: neither a .txt nor a .txt.gz file", path.string()),
                         "keep other things out of class folders");
      }
      files.push_back({std::move(path), static_cast<std::int64_t>(label)});
    }
    if (files.size() == before)
      throw data_error(fmt::format("{}: no examples", (options.path / names[label]).string()));
  }
  return files;
}

RawDataset read_folder(const ReaderOptions& options) {
  RawDataset dataset;
  for (const ClassFile& file : class_files(options)) {
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
  check_reader_options(options);
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
  if (dataset.examples.empty())
    throw data_error(fmt::format("{}: no examples", options.path.string()), "check that this is the right file");
  if (std::all_of(dataset.examples.begin(), dataset.examples.end(),
                  [](const RawExample& example) { return example.text.empty(); })) {
    throw data_error(fmt::format("{}: all {} texts are empty", options.path.string(), dataset.examples.size()),
                     "check that data.text names the right column");
  }
  dataset.source_digest = source_digest(options);
  return dataset;
}

std::string source_digest(const ReaderOptions& options) {
  check_reader_options(options);
  if (format_of(options) != DataFormat::kFolder) return digest_of_file(options.path);
  Digest digest;
  for (const ClassFile& file : class_files(options)) {
    const MappedFile content(file.path);
    digest.add(fmt::format("{} {} {} ", file.path.filename().string(), file.label, content.bytes().size()))
        .add(content.bytes());
  }
  return digest.hex();
}

}  // namespace dtrain
