#include "trainer/hub/hub_uploads.h"

#include <algorithm>
#include <cctype>
#include <chrono>
#include <cstdlib>
#include <string_view>
#include <utility>

#include "core/error.h"
#include "core/file.h"
#include "core/log.h"

namespace dtrain {
namespace fs = std::filesystem;
namespace {

constexpr int kNiceness = 10;  // hashing a checkpoint must not take a core from the training

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// As huggingface_hub reads it.
bool is_offline() {
  std::string value = variable("HF_HUB_OFFLINE");
  if (value.empty()) value = variable("TRANSFORMERS_OFFLINE");
  std::transform(value.begin(), value.end(), value.begin(), [](unsigned char c) { return std::toupper(c); });
  return value == "1" || value == "ON" || value == "YES" || value == "TRUE";
}

// Where huggingface_hub looks for a token; what is in it is not looked at.
bool has_token() {
  if (!variable("HF_TOKEN").empty() || !variable("HUGGING_FACE_HUB_TOKEN").empty()) return true;
  if (!variable("HF_OIDC_RESOURCE").empty()) return true;
  fs::path path = expand_home(variable("HF_TOKEN_PATH"));
  if (path.empty()) {
    const std::string home = variable("HF_HOME");
    const std::string cache = variable("XDG_CACHE_HOME");
    path = (!home.empty()    ? expand_home(home)
            : !cache.empty() ? expand_home(cache) / "huggingface"
                             : expand_home("~/.cache/huggingface")) /
           "token";
  }
  std::error_code code;
  return fs::exists(path, code) && fs::file_size(path, code) > 0;
}

// What the child printed about its failure from `begin` on, fit for a one-line message: its last line that begins with
// "Error", else its last one that is no advice.
std::string reason_in(const fs::path& path, std::uintmax_t begin) {
  std::string text;
  try {
    text = read_file(path);
  } catch (const Error&) {
    return "";
  }
  std::string line;
  std::string reason;
  for (std::size_t i = std::min<std::size_t>(begin, text.size()); i <= text.size(); ++i) {
    if (i < text.size() && text[i] != '\n' && text[i] != '\r') {
      line += static_cast<unsigned char>(text[i]) < 0x20 ? ' ' : text[i];
      continue;
    }
    line.erase(0, line.find_first_not_of(' '));
    const bool says_more = !reason.starts_with("Error") || line.starts_with("Error");
    if (!line.empty() && !line.starts_with("Hint:") && says_more) reason = line;
    line.clear();
  }
  constexpr std::size_t kLongest = 300;
  return reason.substr(0, kLongest);
}

}  // namespace

fs::path require_hub() {
  const char* const kOff = "or set training.push_to_hub = false";
  const std::optional<fs::path> program = find_program("hf");
  if (!program) {
    throw usage_error("training.push_to_hub: there is no program hf on $PATH, which uploads",
                      fmt::format("install it with: pip install huggingface_hub; {}", kOff));
  }
  if (is_offline()) {
    throw usage_error("training.push_to_hub: HF_HUB_OFFLINE is set, so that nothing can be uploaded",
                      fmt::format("unset it, {}", kOff));
  }
  if (!has_token()) {
    throw usage_error("training.push_to_hub: there is no token for the Hub",
                      fmt::format("run: hf auth login; or set HF_TOKEN; {}", kOff));
  }
  return *program;
}

std::vector<std::string> upload_command(const HubTarget& target, const HubUpload& upload) {
  std::vector<std::string> command = {target.program.string(), "upload", target.repo, upload.folder.string(),
                                      upload.path_in_repo};
  if (target.revision) command.push_back("--revision=" + *target.revision);
  if (target.is_private) command.emplace_back(*target.is_private ? "--private" : "--no-private");
  for (const std::string& file : upload.files) command.push_back("--include=" + file);
  command.push_back("--commit-message=" + upload.message);
  return command;
}

std::string shell_text(const std::vector<std::string>& command) {
  const auto plain = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 ||
           std::string_view("-_=./,:+@").find(c) != std::string_view::npos;
  };
  std::string text;
  for (const std::string& word : command) {
    if (!text.empty()) text += ' ';
    if (!word.empty() && std::all_of(word.begin(), word.end(), plain)) {
      text += word;
      continue;
    }
    text += '\'';
    for (const char c : word) text += c == '\'' ? std::string("'\\''") : std::string(1, c);
    text += '\'';
  }
  return text;
}

HubUploads::HubUploads(HubTarget target) : target_(std::move(target)), worker_([this] { work(); }) {}

HubUploads::~HubUploads() { stop(); }

void HubUploads::stop() {
  const std::lock_guard lock(mutex_);
  stopped_ = true;
  if (child_ != nullptr) child_->stop();
  changed_.notify_all();
}

bool HubUploads::busy() const {
  const std::lock_guard lock(mutex_);
  return working_ || !waiting_.empty();
}

void HubUploads::start(HubUpload upload) {
  const std::lock_guard lock(mutex_);
  DTRAIN_CHECK(!stopped_, "an upload after the uploads were stopped");
  waiting_.push_back(std::move(upload));
  changed_.notify_all();
}

std::string HubUploads::finish(const std::function<bool()>& interrupted) {
  std::unique_lock lock(mutex_);
  const auto done = [this] { return !working_ && waiting_.empty(); };
  while (!changed_.wait_for(lock, std::chrono::milliseconds(100), done)) {
    lock.unlock();
    if (interrupted && interrupted()) stop();
    lock.lock();
  }
  return last_failure_;
}

void HubUploads::work() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return stopped_ || !waiting_.empty(); });
    if (waiting_.empty()) return;
    const HubUpload upload = std::move(waiting_.front());
    waiting_.pop_front();
    working_ = true;
    lock.unlock();
    run(upload);
    if (upload.is_temporary) {
      std::error_code ignored;
      fs::remove_all(upload.folder, ignored);
    }
    lock.lock();
    working_ = false;
    changed_.notify_all();
  }
}

void HubUploads::run(const HubUpload& upload) {
  const std::vector<std::string> command = upload_command(target_, upload);
  std::string failure;
  bool stopped = false;
  try {
    {
      OutputFile log(target_.log, OutputFile::Mode::kAppend);
      log.write(fmt::format("$ {}\n", shell_text(command)));
    }
    const std::uintmax_t begin = fs::file_size(target_.log);
    int exit_code = 0;
    {
      std::unique_lock lock(mutex_);
      if (!stopped_) {
        ChildProcess child({.arguments = command,
                            .output = target_.log,
                            .environment = {{"HF_HUB_DISABLE_PROGRESS_BARS", "1"},
                                            {"HF_HUB_DISABLE_UPDATE_CHECK", "1"},
                                            {"NO_COLOR", "1"}},
                            .niceness = kNiceness});
        child_ = &child;
        lock.unlock();
        exit_code = child.wait();
        lock.lock();
        child_ = nullptr;
      }
      stopped = stopped_;
    }
    if (stopped) {
      failure = "stopped";
    } else if (exit_code != 0) {
      failure = fmt::format("hf ended with {}: {}", exit_code, reason_in(target_.log, begin));
    }
  } catch (const std::exception& error) {
    failure = error.what();
  }
  if (failure.empty()) {
    log::info("{} is on the Hub: {}", upload.title, target_.repo);
  } else if (upload.is_temporary && stopped) {
    log::info("the upload of {} was stopped", upload.title);
  } else {
    log::warning("the upload of {} to {} failed ({}; see {}){}", upload.title, target_.repo, failure,
                 target_.log.string(),
                 upload.is_temporary ? "; the training goes on, and a later upload takes its place"
                                     : "; the training is done; try again: " + shell_text(command));
  }
  const std::lock_guard lock(mutex_);
  last_failure_ = std::move(failure);
}

}  // namespace dtrain
