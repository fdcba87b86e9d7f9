#include "core/hub_folder.h"

#include <algorithm>
#include <cstdlib>
#include <string>

#include "core/error.h"
#include "core/file.h"

namespace dtrain {
namespace fs = std::filesystem;
namespace {

fs::path hub_cache() {
  if (const char* cache = std::getenv("HF_HUB_CACHE"); cache != nullptr && *cache != '\0') return expand_home(cache);
  if (const char* home = std::getenv("HF_HOME"); home != nullptr && *home != '\0') return expand_home(home) / "hub";
  return expand_home("~/.cache/huggingface/hub");
}

std::string trimmed(std::string text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r' || text.back() == ' ')) text.pop_back();
  return text;
}

// "models--org--name" in the cache.
fs::path repository_folder(std::string_view kind, std::string_view name) {
  std::string directory(kind);
  directory += "--";
  for (const char c : name) directory += c == '/' ? std::string("--") : std::string(1, c);
  return hub_cache() / directory;
}

std::optional<fs::path> snapshot_in(const fs::path& repository) {
  std::error_code code;
  const fs::path reference = repository / "refs" / "main";
  if (!fs::is_regular_file(reference, code)) return std::nullopt;
  fs::path snapshot = repository / "snapshots" / trimmed(read_file(reference));
  if (!fs::is_directory(snapshot, code)) return std::nullopt;
  return snapshot;
}

// One of the two parts of a repository's name.
bool is_repository_part(std::string_view part) {
  const auto at_end = [](char c) { return c != '-' && c != '.'; };
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' ||
           c == '.';
  };
  return !part.empty() && part.size() <= 96 && at_end(part.front()) && at_end(part.back()) &&
         std::all_of(part.begin(), part.end(), allowed) && part.find("--") == std::string_view::npos &&
         part.find("..") == std::string_view::npos;
}

}  // namespace

bool is_repository_name(std::string_view name) {
  if (name.ends_with(".git")) return false;
  const std::size_t slash = name.find('/');
  if (slash == std::string_view::npos) return is_repository_part(name);
  return is_repository_part(name.substr(0, slash)) && is_repository_part(name.substr(slash + 1));
}

fs::path pretrained_folder(std::string_view name) {
  const fs::path folder = expand_home(name);
  std::error_code code;
  if (fs::is_directory(folder, code)) return folder;
  if (!is_repository_name(name)) {
    throw usage_error(fmt::format("no folder {}", folder.string()), "relative paths start at the current folder");
  }
  const fs::path repository = repository_folder("models", name);
  if (const auto snapshot = snapshot_in(repository)) return *snapshot;
  throw usage_error(fmt::format("{} is neither a folder nor in the Hugging Face cache ({})", name, repository.string()),
                    fmt::format("fetch it with: hf download {}", name));
}

std::optional<HubDatasetPath> hub_dataset_path(std::string_view path) {
  constexpr std::string_view kScheme = "hf://";
  constexpr std::string_view kDatasets = "datasets/";
  if (!path.starts_with(kScheme)) return std::nullopt;
  std::string_view rest = path.substr(kScheme.size());
  const bool datasets = rest.starts_with(kDatasets);
  if (datasets) rest.remove_prefix(kDatasets.size());
  const std::size_t slash = rest.find('/');
  const std::size_t end = slash == std::string_view::npos ? slash : rest.find('/', slash + 1);
  const std::string_view name = rest.substr(0, end);
  if (!datasets || !is_repository_name(name) || std::count(name.begin(), name.end(), '/') != 1) {
    throw usage_error(fmt::format("{} names no data set of the Hugging Face Hub", path),
                      "the form is hf://datasets/USER/NAME/FILE; FILE may be a pattern such as data/train-*.parquet");
  }
  const fs::path repository = repository_folder("datasets", name);
  std::string command = fmt::format("hf download {} --repo-type dataset", name);
  const auto snapshot = snapshot_in(repository);
  if (!snapshot) {
    throw usage_error(fmt::format("the data set {} is not in the Hugging Face cache ({})", name, repository.string()),
                      "fetch it with: " + command);
  }
  const std::string_view file = end == std::string_view::npos ? std::string_view{} : rest.substr(end + 1);
  return HubDatasetPath{*snapshot, std::string(file), std::move(command)};
}

}  // namespace dtrain
