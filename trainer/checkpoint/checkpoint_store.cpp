#include "trainer/checkpoint/checkpoint_store.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <unistd.h>

#include "core/error.h"
#include "core/fault.h"
#include "core/file.h"
#include "core/log.h"
#include "trainer/checkpoint/manifest.h"
#include "trainer/checkpoint/retention.h"

namespace dtrain {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kPrefix = "checkpoint-";

// Removes a folder when it goes, unless released.
class StageGuard {
 public:
  explicit StageGuard(fs::path folder) : folder_(std::move(folder)) {}
  ~StageGuard() {
    if (folder_.empty()) return;
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
  }
  StageGuard(const StageGuard&) = delete;
  StageGuard& operator=(const StageGuard&) = delete;
  void release() { folder_.clear(); }

 private:
  fs::path folder_;
};

std::vector<fs::path> entries_of(const fs::path& folder) {
  std::vector<fs::path> entries;
  std::error_code code;
  do {
    entries.clear();
    for (fs::directory_iterator entry(folder, code), end; !code && entry != end; entry.increment(code)) {
      entries.push_back(entry->path());
    }
  } while (code == std::errc::interrupted);
  if (code && code != std::errc::no_such_file_or_directory) {
    throw system_error(fmt::format("cannot list {}", folder.string()), code.value());
  }
  return entries;
}

void delete_folder(const fs::path& folder) {
  std::error_code code;
  fs::remove_all(folder, code);
  if (code) log::warning("cannot delete {}: {}", folder.string(), code.message());
}

bool is_there(const fs::path& path) {
  std::error_code code;
  return fs::exists(fs::symlink_status(path, code));
}

// A name in `parent` that nothing has yet.
fs::path free_name(const fs::path& parent, const std::string& stem) {
  fs::path name = parent / stem;
  for (int i = 1; is_there(name); ++i) name = parent / fmt::format("{}-{}", stem, i);
  return name;
}

constexpr std::string_view kAside = ".aside-";

// Puts `stage` in the place of `target`, which exists; what stood there is then at `stage`.
void exchange(const fs::path& stage, const fs::path& target) {
  if (::renameat2(AT_FDCWD, stage.c_str(), AT_FDCWD, target.c_str(), RENAME_EXCHANGE) == 0) {
    sync_folder(target.parent_path());
    return;
  }
  if (errno != EINVAL && errno != ENOSYS) {
    throw system_error(fmt::format("cannot exchange {} and {}", stage.string(), target.string()), errno);
  }
  // A file system without atomic exchange (NFS): after a crash between the two renames, put_back() finds the old one.
  const fs::path aside = free_name(target.parent_path(), fmt::format("{}{}", kAside, target.filename().string()));
  rename_synced(target, aside);
  rename_synced(stage, target);
  rename_synced(aside, stage);
}

// The name under which exchange() put a checkpoint aside, "" for other names.
std::string name_of_aside(const std::string& name) {
  if (!name.starts_with(kAside)) return {};
  const std::string checkpoint = name.substr(kAside.size());
  return step_of_name(checkpoint) ? checkpoint : std::string();
}

// run.json and the result files before replace_file() renames them: ".run.json.<pid>.<number>.tmp".
bool is_temporary(const std::string& name) {
  return name.starts_with('.') && name.find(".json.") != std::string::npos && name.ends_with(".tmp");
}

// Newest first, whatever is in them.
std::vector<Checkpoint> folders_of_checkpoints(const fs::path& output_dir) {
  std::vector<Checkpoint> found;
  for (const fs::path& entry : entries_of(output_dir)) {
    std::error_code code;
    const auto step = step_of_name(entry.filename().string());
    if (step && fs::is_directory(entry, code)) found.push_back({*step, entry});
  }
  std::sort(found.begin(), found.end(), [](const Checkpoint& a, const Checkpoint& b) { return a.step > b.step; });
  return found;
}

}  // namespace

std::optional<std::int64_t> step_of_name(const std::string& name) {
  if (!name.starts_with(kPrefix)) return std::nullopt;
  const std::string_view digits = std::string_view(name).substr(kPrefix.size());
  std::int64_t step = -1;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), step);
  if (error != std::errc() || end != digits.data() + digits.size() || step < 0) return std::nullopt;
  if (digits.size() > 1 && digits[0] == '0') return std::nullopt;  // checkpoint-007 is not ours
  return step;
}

CheckpointStore::CheckpointStore(fs::path output_dir) : output_dir_(std::move(output_dir)) {
  std::error_code code;
  fs::create_directories(output_dir_, code);
  if (code) throw system_error(fmt::format("cannot create folder {}", output_dir_.string()), code.value());
}

fs::path CheckpointStore::folder_of(std::int64_t step) const {
  return output_dir_ / fmt::format("{}{}", kPrefix, step);
}

void CheckpointStore::remove_leftovers() const {
  for (const fs::path& entry : entries_of(output_dir_)) {
    const std::string name = entry.filename().string();
    if (const std::string original = name_of_aside(name); !original.empty()) {
      if (is_there(output_dir_ / original)) {
        delete_folder(entry);
      } else {
        rename_synced(entry, output_dir_ / original);
      }
    } else if (name.starts_with(".stage-") || name.starts_with(".dead-") || is_temporary(name)) {
      delete_folder(entry);
    }
  }
}

fs::path CheckpointStore::publish(const PublishRequest& request) const {
  DTRAIN_CHECK(request.step >= 0 && request.write, "checkpoint of step {}", request.step);
  const std::uint64_t needed = request.bytes + request.bytes / 5;
  if (const std::uint64_t available = free_space(output_dir_); available < needed) {
    throw io_error(
        fmt::format("checkpoint of step {} needs {:.1f} MB, {} has {:.1f} MB free", request.step,
                    static_cast<double>(needed) / 1e6, output_dir_.string(), static_cast<double>(available) / 1e6),
        "free space there, or set save_total_limit lower or output_dir elsewhere");
  }
  const auto attempt = [&](int number) {
    try {
      return publish_once(request, number);
    } catch (const fs::filesystem_error& error) {
      throw system_error(
          fmt::format("cannot write the checkpoint of step {}: {}", request.step, error.path1().string()),
          error.code().value());
    }
  };
  try {
    return attempt(1);
  } catch (const Error& error) {
    if (error.code() != ExitCode::kIo) throw;
    // After a failed write or sync the kernel may have dropped pages, so the same files are not tried again.
    log::warning("checkpoint of step {}: {}; writing it once more from the beginning", request.step, error.what());
  }
  return attempt(2);
}

fs::path CheckpointStore::publish_once(const PublishRequest& request, int attempt) const {
  const fs::path stage = output_dir_ / fmt::format(".stage-{}-{}-{}", request.step, ::getpid(), attempt);
  delete_folder(stage);  // of a failed attempt of this very process
  std::error_code code;
  if (!fs::create_directory(stage, code)) {
    throw system_error(fmt::format("cannot create folder {}", stage.string()), code ? code.value() : EEXIST);
  }
  StageGuard guard(stage);
  request.write(stage);

  write_file_synced(stage / kManifestName, manifest_text({{"step", static_cast<std::uint64_t>(request.step)},
                                                          {"config_digest", request.config_digest},
                                                          {"facts", request.facts},
                                                          {"files", sync_and_list(stage)}}));
  sync_folder(stage);
  fault_point("publish", request.step);

  const fs::path folder = folder_of(request.step);
  if (is_there(folder) && !is_there(folder / kManifestName)) {
    const fs::path kept = free_name(output_dir_, folder.filename().string() + ".old");
    rename_synced(folder, kept);
    log::warning("{} had no {}; it is now {}", folder.string(), kManifestName, kept.string());
  }
  if (is_there(folder)) {
    exchange(stage, folder);  // now the guard deletes the older one
  } else {
    rename_synced(stage, folder);
    guard.release();
  }
  fault_point("published", request.step);

  if (const std::string damage = checkpoint_damage(folder); !damage.empty()) {
    throw io_error(fmt::format("{} is not on disk as it was written: {}", folder.string(), damage),
                   "check the disk and its file system; older checkpoints are untouched");
  }
  return folder;
}

void CheckpointStore::remove(std::int64_t step) const {
  const fs::path dead = free_name(output_dir_, fmt::format(".dead-{}-{}", step, ::getpid()));
  rename_synced(folder_of(step), dead);
  fault_point("unpublished", step);
  delete_folder(dead);
}

std::vector<std::int64_t> CheckpointStore::prune(std::optional<std::int64_t> best, std::int64_t limit) const {
  std::vector<std::int64_t> published;
  for (const Checkpoint& checkpoint : list()) published.push_back(checkpoint.step);
  std::vector<std::int64_t> victims = steps_to_delete(std::move(published), best, limit);
  for (const std::int64_t step : victims) remove(step);
  return victims;
}

std::vector<Checkpoint> CheckpointStore::list() const {
  std::vector<Checkpoint> found;
  std::error_code code;
  for (const fs::path& entry : entries_of(output_dir_)) {
    const auto step = step_of_name(entry.filename().string());
    if (step && fs::exists(entry / kManifestName, code)) found.push_back({*step, entry});
  }
  std::sort(found.begin(), found.end(), [](const Checkpoint& a, const Checkpoint& b) { return a.step < b.step; });
  return found;
}

std::optional<Checkpoint> CheckpointStore::latest() const {
  std::vector<Checkpoint> found = folders_of_checkpoints(output_dir_);
  for (std::size_t i = 0; i < found.size();) {
    const std::string damage = checkpoint_damage(found[i].folder);
    if (damage.empty()) return found[i];
    if (!is_there(found[i].folder)) {
      // Removed by the run that writes here, which has published newer ones.
      found = folders_of_checkpoints(output_dir_);
      i = 0;
      continue;
    }
    log::warning("passing over {}: {}", found[i].folder.string(), damage);
    ++i;
  }
  if (found.empty()) return std::nullopt;
  throw data_error(
      fmt::format("none of the {} checkpoints in {} is intact", found.size(), output_dir_.string()),
      "start afresh with overwrite_output_dir = true, or name another checkpoint in resume_from_checkpoint");
}

}  // namespace dtrain
