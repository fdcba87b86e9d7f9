#include "trainer/checkpoint/run_lock.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <string>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/error.h"
#include "core/log.h"
#include "trainer/checkpoint/checkpoint_store.h"
#include "trainer/checkpoint/run_json.h"

namespace dtrain {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kLockName = ".lock";

// What a run leaves at the root of output_dir besides checkpoint folders.
constexpr std::array<std::string_view, 20> kOwnNames = {"run.json",
                                                        "hub.log",
                                                        "log.jsonl",
                                                        "runs",
                                                        "report.html",
                                                        "trainer_state.json",
                                                        "train_results.json",
                                                        "eval_results.json",
                                                        "test_results.json",
                                                        "all_results.json",
                                                        "train.toml",
                                                        "model.safetensors",
                                                        "config.json",
                                                        "tokenizer.json",
                                                        "tokenizer_config.json",
                                                        "special_tokens_map.json",
                                                        "vocab.json",
                                                        "merges.txt",
                                                        "vocab.txt",
                                                        "added_tokens.json"};

std::string holder_of(const fs::path& lock) {
  char text[256];
  const int fd = ::open(lock.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return "another process";
  const ssize_t got = ::read(fd, text, sizeof text);
  ::close(fd);
  std::string holder(text, got > 0 ? static_cast<std::size_t>(got) : 0);
  holder.erase(std::remove_if(holder.begin(), holder.end(), [](char c) { return c < ' ' || c > '~'; }), holder.end());
  return holder.empty() ? "another process" : holder;
}

bool is_current(int fd, const fs::path& path) {
  struct stat mine {};
  struct stat named {};
  return ::fstat(fd, &mine) == 0 && ::stat(path.c_str(), &named) == 0 && mine.st_ino == named.st_ino &&
         mine.st_dev == named.st_dev;
}

bool present(const fs::path& path) {
  std::error_code code;
  return fs::exists(fs::symlink_status(path, code));
}

}  // namespace

RunLock::RunLock(fs::path output_dir) : output_dir_(std::move(output_dir)) {
  std::error_code code;
  if (fs::exists(output_dir_, code) && !fs::is_directory(output_dir_, code)) {
    throw usage_error(fmt::format("output_dir {} is not a folder", output_dir_.string()),
                      "name a folder, or remove the file");
  }
  made_folder_ = fs::create_directories(output_dir_, code);
  if (code) throw system_error(fmt::format("cannot create output_dir {}", output_dir_.string()), code.value());

  const fs::path path = output_dir_ / kLockName;
  while (true) {
    const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0) throw system_error(fmt::format("cannot write to output_dir {}", output_dir_.string()), errno);
    if (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
      const int error = errno;
      ::close(fd);
      if (error == EINTR) continue;
      if (error != EWOULDBLOCK) throw system_error(fmt::format("cannot lock {}", path.string()), error);
      throw usage_error(fmt::format("output_dir {} is in use by {}", output_dir_.string(), holder_of(path)),
                        "wait for that run, or set another output_dir");
    }
    // The former holder may have removed the file between our open and our lock; then the lock is on nothing.
    if (!is_current(fd, path)) {
      ::close(fd);
      continue;
    }
    fd_ = fd;
    break;
  }
  char host[256] = "localhost";
  ::gethostname(host, sizeof host - 1);
  const std::string text = fmt::format("process {} on {}\n", ::getpid(), host);
  // Only a help for people: the lock itself does not depend on it, so a full disk is no reason to stop here.
  if (::ftruncate(fd_, 0) != 0 || ::pwrite(fd_, text.data(), text.size(), 0) < 0) {
    log::debug("cannot write the holder's name into {}", path.string());
  }
}

RunLock::~RunLock() {
  const fs::path path = output_dir_ / kLockName;
  if (is_current(fd_, path)) ::unlink(path.c_str());
  if (made_folder_) ::rmdir(output_dir_.c_str());  // fails, as it should, when something is in it
  ::close(fd_);
}

void prepare_output_folder(const fs::path& output_dir, const OutputFolderOptions& options) {
  const CheckpointStore store(output_dir);
  const std::vector<Checkpoint> checkpoints = store.list();
  const std::optional<RunRecord> record =
      options.overwrite || options.resume ? std::nullopt : read_run_record(output_dir);
  const bool has_record = present(output_dir / "run.json");
  const bool is_ours = has_record || !checkpoints.empty();
  if (!is_ours && (present(output_dir / "model.safetensors") || present(output_dir / "config.json"))) {
    throw usage_error(fmt::format("output_dir {} holds a model that no run of dtrain wrote", output_dir.string()),
                      "set another output_dir: the trained model would overwrite it");
  }
  if (options.resume) {
    store.remove_leftovers();
    return;
  }
  if (!options.overwrite) {
    // A run that ended before its first step left nothing worth keeping.
    const bool has_progress = !checkpoints.empty() || (record && record->step > 0);
    if (!has_progress) return store.remove_leftovers();
    const std::string found = checkpoints.empty() ? fmt::format("a run that reached step {}", record->step)
                                                  : checkpoints.back().folder.filename().string();
    throw usage_error(
        fmt::format("output_dir {} is not empty: it holds {}", output_dir.string(), found),
        "set resume_from_checkpoint = \"latest\" to go on, overwrite_output_dir = true to delete it, or another "
        "output_dir");
  }
  for (const Checkpoint& checkpoint : checkpoints) store.remove(checkpoint.step);
  store.remove_leftovers();
  if (!is_ours) return;
  for (const std::string_view name : kOwnNames) {
    std::error_code code;
    fs::remove_all(output_dir / name, code);
    if (code) throw system_error(fmt::format("cannot delete {}", (output_dir / name).string()), code.value());
  }
}

}  // namespace dtrain
