#include "datasets/readers/source_files.h"

#include <glob.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <optional>
#include <set>

#include "core/hub_folder.h"
#include "datasets/readers/record.h"

namespace dtrain {
namespace fs = std::filesystem;
namespace {

struct Format {
  std::string_view name;
  DataFormat format;
};
constexpr std::array<Format, 8> kFormats = {{{"auto", DataFormat::kAuto},
                                             {"jsonl", DataFormat::kJsonl},
                                             {"csv", DataFormat::kCsv},
                                             {"tsv", DataFormat::kTsv},
                                             {"folder", DataFormat::kFolder},
                                             {"text", DataFormat::kText},
                                             {"conll", DataFormat::kConll},
                                             {"parquet", DataFormat::kParquet}}};
constexpr std::array<Format, 10> kExtensions = {{{".jsonl", DataFormat::kJsonl},
                                                 {".json", DataFormat::kJsonl},
                                                 {".ndjson", DataFormat::kJsonl},
                                                 {".csv", DataFormat::kCsv},
                                                 {".tsv", DataFormat::kTsv},
                                                 {".txt", DataFormat::kText},
                                                 {".conll", DataFormat::kConll},
                                                 {".bio", DataFormat::kConll},
                                                 {".iob2", DataFormat::kConll},
                                                 {".parquet", DataFormat::kParquet}}};

constexpr const char* kPatternSigns = "*?[";

// The format that the name of a file tells. Parquet packs its columns itself, so .parquet.gz is no name of one.
std::optional<DataFormat> format_of_name(const fs::path& path) {
  const bool packed = path.extension() == ".gz";
  const std::string extension = (packed ? path.stem() : path).extension().string();
  for (const Format& known : kExtensions) {
    if (known.name == extension && !(packed && known.format == DataFormat::kParquet)) return known.format;
  }
  return std::nullopt;
}

DataFormat format_of_file(const fs::path& path, DataFormat wanted) {
  if (wanted == DataFormat::kFolder)
    throw usage_error(fmt::format("{} is a file, and data.format says otherwise", path.string()));
  if (wanted != DataFormat::kAuto) return wanted;
  if (const auto format = format_of_name(path)) return *format;
  throw usage_error(fmt::format("{}: the name does not tell the format", path.string()),
                    "set data.format to jsonl, csv, tsv, text, conll or parquet");
}

// Signs of patterns in a name that means itself.
std::string escaped(const std::string& path) {
  std::string text;
  for (const char c : path) {
    if (c == '\\' || std::string_view(kPatternSigns).find(c) != std::string_view::npos) text += '\\';
    text += c;
  }
  return text;
}

std::vector<fs::path> matches(const std::string& pattern) {
  // A folder that is not there has no files; one that cannot be read is an error.
  const auto stops = [](const char*, int code) { return code == ENOENT || code == ENOTDIR ? 0 : 1; };
  glob_t found{};
  const int status = ::glob(pattern.c_str(), 0, stops, &found);
  std::vector<fs::path> paths(found.gl_pathv, found.gl_pathv + found.gl_pathc);
  globfree(&found);
  if (status != 0 && status != GLOB_NOMATCH)
    throw io_error(fmt::format("cannot read the folders that the pattern {} names", pattern));
  std::sort(paths.begin(), paths.end());
  return paths;
}

// The files or the folder that one given path stands for.
std::vector<fs::path> expanded(const fs::path& path) {
  std::string pattern = path.string();
  std::string hint = "relative paths start at the current folder";
  fs::path literal = path;
  if (const auto hub = hub_dataset_path(pattern)) {
    literal = hub->file.empty() ? hub->folder : hub->folder / hub->file;
    pattern = escaped(hub->folder.string()) + "/" + hub->file;
    hint = fmt::format("look at {}; fetch missing files with: {}", hub->folder.string(), hub->fetch_command);
  }
  std::error_code code;
  if (fs::exists(literal, code)) return {literal};
  if (path.string().find_first_of(kPatternSigns) == std::string::npos) {
    throw usage_error(fmt::format("no file or folder {}", path.string()), "check data.train and data.eval; " + hint);
  }
  std::vector<fs::path> found = matches(pattern);
  if (found.empty()) throw usage_error(fmt::format("no file matches the pattern {}", path.string()), hint);
  for (const fs::path& file : found) {
    if (fs::is_directory(file, code)) {
      throw usage_error(fmt::format("the pattern {} matches the folder {}", path.string(), file.string()),
                        "patterns must match files only");
    }
  }
  return found;
}

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

// The pattern of the first data file in the folder or its subfolders when no class folder of texts is there, as in the
// snapshots of the Hub (README.md and data/train-00000-of-00001.parquet); else "".
std::string data_pattern(const fs::path& folder, const std::vector<std::string>& subfolders) {
  std::string pattern;
  const auto look = [&](const fs::path& place) {
    for (const fs::path& path : entries_of(place)) {
      if (!format_of_name(path) || fs::is_directory(path)) continue;
      if (place != folder && format_of_name(path) == DataFormat::kText) return false;
      // "x.jsonl.gz" has two extensions.
      const fs::path inner = path.extension() == ".gz" ? path.stem().extension() : fs::path();
      if (pattern.empty()) pattern = (place / ("*" + inner.string() + path.extension().string())).string();
    }
    return true;
  };
  if (!look(folder)) return {};
  for (const std::string& name : subfolders) {
    if (!look(folder / name)) return {};
  }
  return pattern;
}

// The files of all classes in a fixed order: classes as data.labels lists them or by name, files by name. Files beside
// the class folders are no examples (aclImdb has lists of addresses there).
std::vector<SourceFile> class_files(const fs::path& folder, const ReaderOptions& options) {
  const std::string where = folder.string();
  if (options.label_kind != LabelKind::kClass) {
    throw usage_error(fmt::format("{}: a folder per class gives one class per text", where),
                      "use a .jsonl or .csv file");
  }
  std::vector<std::string> found;
  for (const fs::path& path : entries_of(folder)) {
    if (fs::is_directory(path)) found.push_back(path.filename().string());
  }
  if (const std::string pattern = data_pattern(folder, found); !pattern.empty()) {
    throw usage_error(fmt::format("{} holds data files, and no folder of texts per class", where),
                      fmt::format("name a file, or all files with a pattern: {}", pattern));
  }
  const std::vector<std::string>& names = options.class_names.empty() ? found : options.class_names;
  if (static_cast<std::int64_t>(names.size()) != options.num_labels) {
    throw data_error(fmt::format("{} has {} class folders ({}), and model.num_labels = {}", where, found.size(),
                                 found.empty() ? "none" : join_names(found), options.num_labels),
                     "list the class folders to use in data.labels, or change model.num_labels");
  }
  std::vector<SourceFile> files;
  for (std::size_t label = 0; label < names.size(); ++label) {
    if (std::find(found.begin(), found.end(), names[label]) == found.end()) {
      throw data_error(fmt::format("{}: no folder for the class \"{}\"; there are: {}", where, names[label],
                                   found.empty() ? "none" : join_names(found)),
                       "correct data.labels");
    }
    const std::size_t before = files.size();
    for (fs::path& path : entries_of(folder / names[label])) {
      if (format_of_name(path) != DataFormat::kText) {
        throw data_error(fmt::format("{}: neither a .txt nor a .txt.gz file", path.string()),
                         "keep other things out of class folders");
      }
      files.push_back({std::move(path), static_cast<std::int64_t>(label)});
    }
    if (files.size() == before) throw data_error(fmt::format("{}: no examples", (folder / names[label]).string()));
  }
  return files;
}

// Formats hold some kinds of records only.
void check_format_holds(DataFormat format, const ReaderOptions& options, const fs::path& path) {
  const auto cannot = [&](std::string_view what, const std::string& hint) {
    throw usage_error(fmt::format("{}: the format {} {}", path.string(), name_of(format), what), hint);
  };
  const bool separated = format == DataFormat::kCsv || format == DataFormat::kTsv;
  const bool texts = format == DataFormat::kText || format == DataFormat::kFolder;
  switch (options.record) {
    case RecordKind::kText:
      if (format == DataFormat::kConll) cannot("holds words with tags, and texts are needed", "convert it to .jsonl");
      if (format == DataFormat::kText && options.has_labels) {
        cannot("has no labels", "use .jsonl, .csv, .parquet or a folder per class for texts with labels");
      }
      return;
    case RecordKind::kWords:
      if (separated || texts) cannot("cannot hold lists of words and tags", "use .jsonl, .parquet or .conll");
      return;
    case RecordKind::kPair:
      if (texts || format == DataFormat::kConll) cannot("cannot hold pairs of texts", "use .jsonl, .csv or .parquet");
      return;
  }
}

}  // namespace

DataFormat parse_data_format(std::string_view name) {
  for (const Format& known : kFormats) {
    if (known.name == name) return known.format;
  }
  throw usage_error(fmt::format("data.format: \"{}\" is not known", name),
                    "auto, jsonl, csv, tsv, folder, text, conll or parquet");
}

std::string_view name_of(DataFormat format) {
  return std::find_if(kFormats.begin(), kFormats.end(), [&](const Format& known) { return known.format == format; })
      ->name;
}

SourceFiles source_files(const ReaderOptions& options) {
  std::vector<fs::path> paths = expanded(options.path);
  for (const fs::path& path : options.more_paths) {
    for (fs::path& file : expanded(path)) paths.push_back(std::move(file));
  }
  std::error_code code;
  if (fs::is_directory(paths[0], code) && paths.size() == 1) {
    if (options.format != DataFormat::kAuto && options.format != DataFormat::kFolder)
      throw usage_error(fmt::format("{} is a folder, and data.format says otherwise", paths[0].string()));
    SourceFiles source{DataFormat::kFolder, class_files(paths[0], options)};
    check_format_holds(source.format, options, paths[0]);
    return source;
  }
  SourceFiles source{};
  std::set<fs::path> seen;
  for (fs::path& path : paths) {
    if (fs::is_directory(path, code)) {
      throw usage_error(fmt::format("{} is a folder, and it is one of several paths", path.string()),
                        "several paths must be files or patterns");
    }
    const DataFormat format = format_of_file(path, options.format);
    if (source.files.empty()) source.format = format;
    if (format != source.format) {
      throw usage_error(
          fmt::format("{} has the format {}, and {} has {}", path.string(), name_of(format),
                      source.files[0].path.string(), name_of(source.format)),
          "the files of a data set have one format; convert one of them, or set data.format when a name misleads");
    }
    if (!seen.insert(path).second)
      throw usage_error(fmt::format("{} is named twice", path.string()), "name every file once");
    source.files.push_back({std::move(path)});
  }
  check_format_holds(source.format, options, source.files[0].path);
  return source;
}

}  // namespace dtrain
