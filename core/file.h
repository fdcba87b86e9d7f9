// Files: reading, mapping, and writing so that a crash at any instant leaves the old content or the new, never a
// mixture. All functions throw Error (kIo, or kData where said) with the path in the message. Thread-safe; nothing is
// collective.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace dtrain {

// The whole file, as bytes.
[[nodiscard]] std::string read_file(const std::filesystem::path& path);

// Writes all bytes to `path` in place and syncs them to disk; checks every write and the close.
void write_file_synced(const std::filesystem::path& path, std::string_view bytes);

// Replaces `path` atomically: a sibling temporary file, fsync, rename, fsync of the folder.
void replace_file(const std::filesystem::path& path, std::string_view bytes);

// Makes the names inside `folder` durable.
void sync_folder(const std::filesystem::path& folder);

// Renames and makes the new name durable in its folder.
void rename_synced(const std::filesystem::path& from, const std::filesystem::path& to);

// Bytes that an unprivileged process can still write on the file system that holds `path` (nearest existing parent).
[[nodiscard]] std::uint64_t free_space(const std::filesystem::path& path);

// `~` and `~/x` expanded with $HOME; everything else unchanged.
[[nodiscard]] std::filesystem::path expand_home(std::string_view path);

// A file opened for appending or writing in pieces; every write is checked. close() reports what the kernel delayed.
class OutputFile {
 public:
  enum class Mode { kTruncate, kAppend, kExclusive };
  OutputFile(std::filesystem::path path, Mode mode);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  void write(std::string_view bytes);
  void sync();
  void close();  // idempotent; the destructor closes too but swallows errors

 private:
  std::filesystem::path path_;
  int fd_ = -1;
};

// A read-only mapping of a whole file; the bytes stay valid as long as the object lives. An empty file maps to an empty
// span.
class MappedFile {
 public:
  explicit MappedFile(std::filesystem::path path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return {data_, size_}; }
  [[nodiscard]] std::string_view text() const noexcept { return {reinterpret_cast<const char*>(data_), size_}; }
  [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }

 private:
  std::filesystem::path path_;
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

// An exclusive advisory lock on a file (created when missing), released by the kernel when the process ends in any way.
class FileLock {
 public:
  // Does not wait: held() is false when another process holds the lock.
  explicit FileLock(std::filesystem::path path);
  ~FileLock();
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;
  [[nodiscard]] bool held() const noexcept { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

}  // namespace dtrain
