#include "core/file.h"

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/error.h"

namespace dtrain {
namespace fs = std::filesystem;
namespace {

constexpr mode_t kFileMode = 0644;

int open_or_throw(const fs::path& path, int flags, std::string_view verb) {
  int fd = -1;
  do {
    fd = ::open(path.c_str(), flags | O_CLOEXEC, kFileMode);
  } while (fd < 0 && errno == EINTR);
  if (fd < 0) throw system_error(fmt::format("cannot {} {}", verb, path.string()), errno);
  return fd;
}

void write_all(int fd, std::string_view bytes, const fs::path& path) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd, bytes.data(), bytes.size());
    if (written < 0) {
      if (errno == EINTR) continue;
      throw system_error(fmt::format("cannot write {}", path.string()), errno);
    }
    bytes.remove_prefix(static_cast<std::size_t>(written));
  }
}

// An interrupted sync goes on; after any other failure the file is lost, since a second fsync would report success for
// pages that the kernel has dropped.
int fsync_uninterrupted(int fd) {
  int result = 0;
  do {
    result = ::fsync(fd);
  } while (result != 0 && errno == EINTR);
  return result;
}

void sync_fd(int fd, const fs::path& path) {
  if (fsync_uninterrupted(fd) != 0) throw system_error(fmt::format("cannot sync {}", path.string()), errno);
}

fs::path folder_of(const fs::path& path) { return path.has_parent_path() ? path.parent_path() : fs::path("."); }

}  // namespace

std::string read_file(const fs::path& path) {
  const int fd = open_or_throw(path, O_RDONLY, "read");
  std::string bytes;
  struct stat info {};
  if (::fstat(fd, &info) == 0 && S_ISDIR(info.st_mode)) {
    ::close(fd);
    throw system_error(fmt::format("cannot read {}", path.string()), EISDIR);
  }
  if (info.st_size > 0) bytes.reserve(static_cast<std::size_t>(info.st_size));
  char chunk[1 << 16];
  while (true) {
    const ssize_t got = ::read(fd, chunk, sizeof chunk);
    if (got < 0) {
      if (errno == EINTR) continue;
      const int error = errno;
      ::close(fd);
      throw system_error(fmt::format("cannot read {}", path.string()), error);
    }
    if (got == 0) break;
    bytes.append(chunk, static_cast<std::size_t>(got));
  }
  ::close(fd);
  return bytes;
}

OutputFile::OutputFile(fs::path path, Mode mode) : path_(std::move(path)) {
  int flags = O_WRONLY | O_CREAT;
  if (mode == Mode::kTruncate) flags |= O_TRUNC;
  if (mode == Mode::kAppend) flags |= O_APPEND;
  if (mode == Mode::kExclusive) flags |= O_EXCL;
  fd_ = open_or_throw(path_, flags, "write");
}

OutputFile::~OutputFile() {
  if (fd_ >= 0) ::close(fd_);
}

void OutputFile::write(std::string_view bytes) { write_all(fd_, bytes, path_); }
void OutputFile::sync() { sync_fd(fd_, path_); }

void OutputFile::close() {
  if (fd_ < 0) return;
  const int result = ::close(fd_);
  fd_ = -1;
  if (result != 0 && errno != EINTR) throw system_error(fmt::format("cannot close {}", path_.string()), errno);
}

void write_file_synced(const fs::path& path, std::string_view bytes) {
  OutputFile file(path, OutputFile::Mode::kTruncate);
  file.write(bytes);
  file.sync();
  file.close();
}

void replace_file(const fs::path& path, std::string_view bytes) {
  static std::atomic<std::uint64_t> count = 0;  // two threads may replace the same file
  const fs::path temporary =
      folder_of(path) / fmt::format(".{}.{}.{}.tmp", path.filename().string(), ::getpid(), ++count);
  try {
    write_file_synced(temporary, bytes);
    rename_synced(temporary, path);
  } catch (const Error&) {
    ::unlink(temporary.c_str());
    throw;
  }
}

void sync_folder(const fs::path& folder) {
  const int fd = open_or_throw(folder, O_RDONLY | O_DIRECTORY, "open folder");
  const int result = fsync_uninterrupted(fd);
  const int error = errno;
  ::close(fd);
  // Some network file systems cannot sync a folder; they make names durable by themselves.
  if (result != 0 && error != EINVAL) throw system_error(fmt::format("cannot sync folder {}", folder.string()), error);
}

void rename_synced(const fs::path& from, const fs::path& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) {
    throw system_error(fmt::format("cannot rename {} to {}", from.string(), to.string()), errno);
  }
  sync_folder(folder_of(to));
}

std::uint64_t free_space(const fs::path& path) {
  fs::path existing = path.empty() ? fs::path(".") : path;
  std::error_code code;
  while (!fs::exists(existing, code) && existing.has_relative_path()) existing = folder_of(existing);
  const fs::space_info info = fs::space(existing, code);
  if (code) throw system_error(fmt::format("cannot ask for the free space of {}", existing.string()), code.value());
  return info.available;
}

fs::path expand_home(std::string_view path) {
  const char* home = std::getenv("HOME");
  if (home == nullptr || path.empty() || path[0] != '~') return fs::path(path);
  if (path.size() == 1) return fs::path(home);
  if (path[1] != '/') return fs::path(path);
  return fs::path(home) / path.substr(2);
}

MappedFile::MappedFile(fs::path path) : path_(std::move(path)) {
  const int fd = open_or_throw(path_, O_RDONLY, "read");
  struct stat info {};
  if (::fstat(fd, &info) != 0 || S_ISDIR(info.st_mode)) {
    const int error = S_ISDIR(info.st_mode) ? EISDIR : errno;
    ::close(fd);
    throw system_error(fmt::format("cannot read {}", path_.string()), error);
  }
  size_ = static_cast<std::size_t>(info.st_size);
  if (size_ > 0) {
    void* address = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd, 0);
    if (address == MAP_FAILED) {
      const int error = errno;
      ::close(fd);
      throw system_error(fmt::format("cannot map {}", path_.string()), error);
    }
    data_ = static_cast<const std::byte*>(address);
  }
  ::close(fd);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

FileLock::FileLock(fs::path path) {
  const int fd = open_or_throw(path, O_RDWR | O_CREAT, "lock");
  if (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    const int error = errno;
    ::close(fd);
    if (error != EWOULDBLOCK) throw system_error(fmt::format("cannot lock {}", path.string()), error);
    return;
  }
  fd_ = fd;
}

FileLock::~FileLock() {
  if (fd_ >= 0) ::close(fd_);
}

}  // namespace dtrain
