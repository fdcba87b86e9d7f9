#include "trainer/hub/hub_pusher.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include <unistd.h>

#include "core/error.h"
#include "core/file.h"
#include "core/log.h"

namespace dtrain {
namespace fs = std::filesystem;
namespace {

// Files of a checkpoint that are there to go on from it, not to use the model.
constexpr std::array<std::string_view, 3> kOnlyToResume = {"optimizer.safetensors", "manifest.json", "train.toml"};

// The same file under another name where the file system can do that, else a copy. Published files are never written to
// again, so both are the same.
void link_or_copy(const fs::path& from, const fs::path& to) {
  std::error_code code;
  fs::create_hard_link(from, to, code);
  if (code) fs::copy_file(from, to);
}

}  // namespace

HubPusher::HubPusher(HubPushOptions options) : options_(std::move(options)), uploads_(options_.target) {}

fs::path HubPusher::stage(const TrainerState& state, const fs::path& checkpoint) const {
  // A later run in this folder deletes what is left of such a name.
  fs::path stage = options_.output_dir / fmt::format(".stage-hub-{}-{}", state.global_step, ::getpid());
  try {
    fs::remove_all(stage);
    fs::create_directory(stage);
    fs::path whole;
    if (options_.strategy == "checkpoint") whole = stage / "last-checkpoint";
    if (options_.strategy == "all_checkpoints") whole = stage / checkpoint.filename();
    if (!whole.empty()) fs::create_directory(whole);
    for (const auto& entry : fs::directory_iterator(checkpoint)) {
      const fs::path name = entry.path().filename();
      if (std::find(kOnlyToResume.begin(), kOnlyToResume.end(), name.string()) == kOnlyToResume.end()) {
        link_or_copy(entry.path(), stage / name);
      }
      if (!whole.empty()) link_or_copy(entry.path(), whole / name);
    }
    if (const std::string card = options_.card ? options_.card(state) : ""; !card.empty()) {
      write_file_synced(stage / "README.md", card);
    }
  } catch (const std::exception&) {
    std::error_code ignored;
    fs::remove_all(stage, ignored);
    throw;
  }
  return stage;
}

void HubPusher::on_save(const TrainerState& state, TrainerControl&, const fs::path& checkpoint) {
  if (options_.strategy == "end") return;
  const std::string title = fmt::format("step {}", state.global_step);
  if (!options_.always_push && uploads_.busy()) {
    log::info("{} is not uploaded: an earlier upload is still under way (hub_always_push)", title);
    return;
  }
  try {
    uploads_.start({.title = title,
                    .folder = stage(state, checkpoint),
                    .message = fmt::format("Training in progress, {}", title),
                    .is_temporary = true});
  } catch (const Error& error) {
    log::warning("the upload of {} is not possible: {}", title, error.what());
  } catch (const fs::filesystem_error& error) {
    log::warning("the upload of {} is not possible: {}", title, error.what());
  }
}

std::string HubPusher::push_result(std::vector<std::string> files, const std::function<bool()>& interrupted) {
  if (uploads_.busy()) log::info("waiting for the uploads of checkpoints");
  uploads_.start(
      {.title = "the result", .folder = options_.output_dir, .files = std::move(files), .message = "End of training"});
  return uploads_.finish(interrupted);
}

}  // namespace dtrain
