#include "core/error.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <numeric>
#include <vector>

namespace dtrain {
namespace {

constexpr std::size_t kLongest = 4000;

// Messages quote what came from outside, which may hold line ends, terminal codes or a megabyte.
std::string one_line(std::string text) {
  if (text.size() > kLongest) {
    std::size_t end = kLongest;
    while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0U) == 0x80U) --end;  // not inside a character
    text.replace(end, std::string::npos, "...");
  }
  std::replace_if(
      text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; }, '?');
  return text;
}

}  // namespace

Error usage_error(const std::string& message, std::string hint) {
  return {ExitCode::kUsage, one_line(message), one_line(std::move(hint))};
}
Error data_error(const std::string& message, std::string hint) {
  return {ExitCode::kData, one_line(message), one_line(std::move(hint))};
}
Error disagree_error(const std::string& message, std::string hint) {
  return {ExitCode::kDisagree, one_line(message), one_line(std::move(hint))};
}
Error io_error(const std::string& message, std::string hint) {
  return {ExitCode::kIo, one_line(message), one_line(std::move(hint))};
}

Error system_error(const std::string& what, int errno_value) {
  std::string hint;
  switch (errno_value) {
    case ENOSPC:
    case EDQUOT:
      hint =
          "the disk is full: free space, or lower save_total_limit, then start again with resume_from_checkpoint = "
          "\"latest\"";
      break;
    case EACCES:
    case EPERM:
    case EROFS:
      hint = "check who owns the path and whether it may be written";
      break;
    case ENOENT:
      hint = "check the spelling of the path; relative paths start at the current folder";
      break;
    case EMFILE:
    case ENFILE:
      hint = "raise the limit of open files (ulimit -n)";
      break;
    case ENOMEM:
      // Not the disk's fault: mapping a file is often the first thing that a process short of memory fails at.
      return {ExitCode::kInternal, fmt::format("{}: {}", what, std::strerror(errno_value)),
              "memory is short: lower per_device_train_batch_size, or give the job more memory (ulimit -v, cgroup)"};
    default:
      break;
  }
  return io_error(fmt::format("{}: {}", what, std::strerror(errno_value)), std::move(hint));
}

namespace internal {
void check_failed(const char* file, int line, const char* expression, const std::string& message) {
  throw Error(ExitCode::kInternal, fmt::format("{} [{} is false at {}:{}]", message, expression, file, line),
              "this is a defect in dtrain: please report it with this line");
}
}  // namespace internal

std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t substitute = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substitute});
    }
  }
  return row[b.size()];
}

}  // namespace dtrain
