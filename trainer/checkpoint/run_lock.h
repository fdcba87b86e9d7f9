// RunLock: one run per output_dir. The kernel releases it when the process ends in whatever way; no stale lock remains.
#pragma once

#include <filesystem>

namespace dtrain {

class RunLock {
 public:
  // Creates `output_dir` when missing and locks `output_dir/.lock`, without waiting. When another process holds it:
  // Error(kUsage) naming the holder's host and process.
  explicit RunLock(std::filesystem::path output_dir);
  // Removes the lock file, and the folder if this object made it and it is still empty.
  ~RunLock();
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;

 private:
  std::filesystem::path output_dir_;
  bool made_folder_ = false;
  int fd_ = -1;
};

struct OutputFolderOptions {
  bool overwrite = false;  // training.overwrite_output_dir
  bool resume = false;     // training.resume_from_checkpoint is set
};

// Checks that a run may write into `output_dir`; call it under the RunLock. Error(kUsage) when the folder holds an
// earlier run and neither option is set, or a model that dtrain did not write. With overwrite (and not resume) it
// deletes what an earlier run of dtrain wrote, and nothing else.
void prepare_output_folder(const std::filesystem::path& output_dir, const OutputFolderOptions& options);

}  // namespace dtrain
