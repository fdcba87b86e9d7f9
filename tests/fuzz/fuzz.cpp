#include "tests/fuzz/fuzz.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <system_error>

#include "core/log.h"

namespace dtrain::fuzz {
namespace fs = std::filesystem;
namespace {

constexpr std::size_t kLongestMessage = 4096;

// Warnings about each input would slow the search down.
[[maybe_unused]] const bool kQuiet = [] {
  log::set_up(0, 1, log::Level::kError, log::Level::kError);
  return true;
}();

class Folder {
 public:
  Folder() {
    std::error_code code;
    const fs::path memory = "/dev/shm";
    std::string pattern = (fs::is_directory(memory, code) ? memory : fs::temp_directory_path()) / "fuzzed-XXXXXX";
    require(::mkdtemp(pattern.data()) != nullptr, "no temporary folder", pattern);
    path_ = pattern;
  }
  ~Folder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  [[nodiscard]] const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

}  // namespace

void require(bool holds, std::string_view what, std::string_view detail) {
  if (holds) return;
  std::fprintf(stderr, "\nfuzz: %.*s: %.*s\n", static_cast<int>(what.size()), what.data(),
               static_cast<int>(std::min(detail.size(), kLongestMessage)), detail.data());
  std::abort();
}

void require_fair(const Error& error) {
  const std::string_view message = error.what();
  require(error.code() == ExitCode::kUsage || error.code() == ExitCode::kData || error.code() == ExitCode::kIo ||
              error.code() == ExitCode::kDisagree,
          "an Error with the code of a defect", message);
  const bool plain = std::none_of(message.begin(), message.end(),
                                  [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == '\x7F'; });
  require(plain && !message.empty(), "an Error that is not one line", message);
  require(message.size() <= kLongestMessage, "an Error of more than one line's length", message);
}

std::uint8_t Input::byte() {
  if (rest_.empty()) return 0;
  const auto value = static_cast<std::uint8_t>(rest_.front());
  rest_.remove_prefix(1);
  return value;
}

std::string_view Input::until(std::string_view end) {
  const std::size_t at = rest_.find(end);
  const std::string_view part = rest_.substr(0, at);
  rest_.remove_prefix(at == std::string_view::npos ? rest_.size() : at + end.size());
  return part;
}

const fs::path& fresh_folder() {
  static const Folder folder;
  for (const auto& entry : fs::directory_iterator(folder.path())) fs::remove_all(entry.path());
  return folder.path();
}

}  // namespace dtrain::fuzz
