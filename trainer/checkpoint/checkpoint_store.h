// CheckpointStore: the checkpoints of one output_dir. Publishing is all or nothing, at whatever instant the process
// dies: a folder `checkpoint-<step>` with its manifest is complete, everything else is debris with a known name.
//
//   publish  .stage-<step>-<pid>-<attempt>/ -> files, fsync -> manifest.json (sizes, digests), fsync -> rename, fsync
//   of
//            output_dir -> verify
//   remove   rename to .dead-<step>-<pid> (un-published), fsync of output_dir, then delete
//
// A write or sync that fails is tried once more with new files: after a failed fsync the old ones may lack pages that
// the kernel has given up. One process at a time (rank 0 holding the RunLock) publishes and removes; reading needs no
// lock. Nothing is collective. Not thread-safe. Failures of the file system are Error(kIo), with the stage removed and
// what was published untouched.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"

namespace dtrain {

struct Checkpoint {
  std::int64_t step = 0;
  std::filesystem::path folder;
};

struct PublishRequest {
  std::int64_t step = 0;
  std::uint64_t bytes = 0;  // estimate of what `write` writes; a disk without 1.2 times that is refused beforehand
  std::string config_digest = {};  // of the run, kept in the manifest
  Json facts = Json::object();     // anything else to keep in the manifest, e.g. {"best_step": 40}
  // Writes all files into the (empty) folder it is given. It need not sync them. What it throws, publish() throws.
  std::function<void(const std::filesystem::path& stage)> write = {};
};

class CheckpointStore {
 public:
  // Creates output_dir when missing. Touches nothing else.
  explicit CheckpointStore(std::filesystem::path output_dir);

  // Deletes stages, removed checkpoints and temporary files that earlier processes left half-way, and puts a checkpoint
  // back that was being replaced. Only under the RunLock.
  void remove_leftovers() const;

  // Returns the published folder, verified from disk. An older checkpoint of the same step is replaced.
  std::filesystem::path publish(const PublishRequest& request) const;

  // Un-publishes, then deletes. A failing deletion is only a warning: the debris is known as such.
  void remove(std::int64_t step) const;

  // Removes what steps_to_delete() names; returns those steps.
  std::vector<std::int64_t> prune(std::optional<std::int64_t> best, std::int64_t limit) const;

  // Folders with a manifest, oldest first; not verified.
  [[nodiscard]] std::vector<Checkpoint> list() const;

  // The newest intact checkpoint; a warning names each damaged one that it passes over. Nothing when there is no
  // checkpoint at all; Error(kData) when there are some and none is intact.
  [[nodiscard]] std::optional<Checkpoint> latest() const;

  [[nodiscard]] std::filesystem::path folder_of(std::int64_t step) const;
  [[nodiscard]] const std::filesystem::path& output_dir() const noexcept { return output_dir_; }

 private:
  [[nodiscard]] std::filesystem::path publish_once(const PublishRequest& request, int attempt) const;

  std::filesystem::path output_dir_;
};

// What is wrong with the checkpoint in `folder` ("model.safetensors: digest differs ..."), or "" when every file is as
// the manifest says. Reads everything. Files that the manifest does not list are ignored.
[[nodiscard]] std::string checkpoint_damage(const std::filesystem::path& folder);

// The same of one file and its entry in the manifest, {bytes, xxh3_128}. Throws Error(kIo) when it cannot be read.
[[nodiscard]] std::string file_damage(const std::filesystem::path& path, const Json& entry);

// The verified content of manifest.json: {format, version, step, config_digest, facts, files}. Throws Error(kData).
[[nodiscard]] Json read_manifest(const std::filesystem::path& folder);

// The step of a folder name "checkpoint-<step>", or nothing.
[[nodiscard]] std::optional<std::int64_t> step_of_name(const std::string& name);

}  // namespace dtrain
