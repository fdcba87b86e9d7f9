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

// Letters, digits, '-', '_', '.', and at most one '/': what the Hub allows as the name of a repository.
bool is_repository_name(std::string_view name) {
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' ||
           c == '.' || c == '/';
  };
  return !name.empty() && name.front() != '/' && name.back() != '/' && name.front() != '.' &&
         std::all_of(name.begin(), name.end(), allowed) && std::count(name.begin(), name.end(), '/') <= 1;
}

std::string trimmed(std::string text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r' || text.back() == ' ')) text.pop_back();
  return text;
}

}  // namespace

fs::path pretrained_folder(std::string_view name) {
  const fs::path folder = expand_home(name);
  std::error_code code;
  if (fs::is_directory(folder, code)) return folder;
  if (!is_repository_name(name)) {
    throw usage_error(fmt::format("no folder {}", folder.string()), "relative paths start at the current folder");
  }
  std::string directory = "models--";
  for (const char c : name) directory += c == '/' ? std::string("--") : std::string(1, c);
  const fs::path repository = hub_cache() / directory;
  const fs::path reference = repository / "refs" / "main";
  if (fs::is_regular_file(reference, code)) {
    const fs::path snapshot = repository / "snapshots" / trimmed(read_file(reference));
    if (fs::is_directory(snapshot, code)) return snapshot;
  }
  throw usage_error(fmt::format("{} is neither a folder nor in the Hugging Face cache ({})", name, repository.string()),
                    fmt::format("fetch it with: hf download {}", name));
}

}  // namespace dtrain
