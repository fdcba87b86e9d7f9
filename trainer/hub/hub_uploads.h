// HubUploads: uploads to a repository of the Hugging Face Hub, one after the other in the background, each by the Hub's
// own `hf upload` as a child process. A failed upload is one warning with the command to try again, never an exception.
// The token is hf's affair ($HF_TOKEN or `hf auth login`): it is neither read nor passed on here.
#pragma once

#include <condition_variable>
#include <deque>
#include <filesystem>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "core/child_process.h"

namespace dtrain {

struct HubTarget {
  std::string repo = {};                     // "user/name"; made when missing
  std::optional<std::string> revision = {};  // the branch; made when missing
  std::optional<bool> is_private = {};       // of a repository that is made
  std::filesystem::path program = {};        // hf
  std::filesystem::path log = {};            // what hf prints is appended to this file
};

struct HubUpload {
  std::string title = {};             // for messages: "step 40"
  std::filesystem::path folder = {};  // absolute
  std::string path_in_repo = ".";
  std::vector<std::string> files = {};  // names or patterns in the folder; empty: all
  std::string message = {};             // of the commit
  bool is_temporary = false;            // delete the folder afterwards; others can be uploaded again by hand
};

// The command line: program, "upload", repository, ... The path of the folder is the only one in it.
[[nodiscard]] std::vector<std::string> upload_command(const HubTarget& target, const HubUpload& upload);

// For people: quoted for a shell where needed.
[[nodiscard]] std::string shell_text(const std::vector<std::string>& command);

// What stands in the way of any upload, found out without the network: Error(kUsage) when there is no `hf` on $PATH, no
// token, or when HF_HUB_OFFLINE forbids it. Returns the path of hf.
[[nodiscard]] std::filesystem::path require_hub();

class HubUploads {
 public:
  explicit HubUploads(HubTarget target);
  // Stops the upload that runs, and forgets those that wait.
  ~HubUploads();
  HubUploads(const HubUploads&) = delete;
  HubUploads& operator=(const HubUploads&) = delete;

  // Whether one runs or waits.
  [[nodiscard]] bool busy() const;
  void start(HubUpload upload);
  // Waits for all. `interrupted` is asked ten times a second; once it says true, what is left is stopped. Returns why
  // the last upload failed, or "" when it arrived.
  std::string finish(const std::function<bool()>& interrupted = {});

  [[nodiscard]] const HubTarget& target() const { return target_; }

 private:
  void work();
  void run(const HubUpload& upload);
  void stop();

  HubTarget target_;
  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::deque<HubUpload> waiting_;
  ChildProcess* child_ = nullptr;  // the one that runs
  bool working_ = false;
  bool stopped_ = false;
  std::string last_failure_;
  std::jthread worker_;
};

}  // namespace dtrain
