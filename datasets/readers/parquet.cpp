// Loads the reader of Parquet files, which is a library of its own: see arrow_parquet.cpp.
#include <filesystem>

#include <dlfcn.h>

#include "datasets/readers/examples.h"

namespace dtrain {
namespace {

using Entry = void (*)(const std::string& file, Examples& examples);

// Beside the library that this function is in.
std::filesystem::path library_path() {
  Dl_info info = {};
  if (dladdr(reinterpret_cast<const void*>(&has_parquet), &info) == 0 || info.dli_fname == nullptr) return {};
  return std::filesystem::absolute(info.dli_fname).parent_path() / "libdtrain_parquet.so";
}

Entry load(const std::string& file) {
  if (!has_parquet()) {
    throw usage_error(fmt::format("{}: this build reads no Parquet ({} is missing)", file, library_path().string()),
                      "build with -DDTRAIN_PARQUET=ON, which needs Apache Arrow (./dev build fetches it), or convert "
                      "the file to .jsonl");
  }
  // RTLD_LOCAL: Arrow's libraries export a simdjson of another version, which must not take the place of ours.
  void* library = dlopen(library_path().c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr)
    throw usage_error(fmt::format("cannot load the reader of Parquet files: {}", dlerror()), "install Apache Arrow");
  const auto entry = reinterpret_cast<Entry>(dlsym(library, "dtrain_read_parquet"));
  DTRAIN_CHECK(entry != nullptr, "{} has no entry", library_path().string());
  return entry;
}

}  // namespace

bool has_parquet() {
  std::error_code code;
  return std::filesystem::exists(library_path(), code);
}

void read_parquet(const std::string& file, Examples& examples) {
  static const Entry entry = load(file);
  entry(file, examples);
}

}  // namespace dtrain
