// Which files a data set is: what ReaderOptions::path and more_paths stand for, after patterns and the Hugging Face
// cache are looked up.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "datasets/readers/raw_dataset.h"

namespace dtrain {

struct SourceFile {
  std::filesystem::path path;
  std::int64_t label = -1;  // of kFolder: the class whose folder the file is in
};

struct SourceFiles {
  DataFormat format;              // not kAuto
  std::vector<SourceFile> files;  // at least one
};

// The files of a pattern are sorted by name, those of a folder by class and name. Throws what read_raw_dataset() says
// about paths.
[[nodiscard]] SourceFiles source_files(const ReaderOptions& options);

// Name of a format in data.format.
[[nodiscard]] std::string_view name_of(DataFormat format);

}  // namespace dtrain
