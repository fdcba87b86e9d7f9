#include "trainer/resume.h"

#include "configs/config_text.h"
#include "configs/load_config.h"
#include "core/error.h"
#include "core/file.h"
#include "core/log.h"
#include "trainer/first_rank.h"

namespace dtrain {
namespace fs = std::filesystem;
namespace {

fs::path choose_folder(const TrainConfig& config, const CheckpointStore& store) {
  const std::string& wanted = *config.training.resume_from_checkpoint;
  if (wanted == "latest") {
    const std::optional<Checkpoint> latest = store.latest();
    if (!latest) {
      log::info("no checkpoint in {} yet: starting from the beginning", store.output_dir().string());
      return {};
    }
    return latest->folder;
  }
  const fs::path folder = expand_home(wanted);
  std::error_code ignored;
  if (!fs::exists(folder / "manifest.json", ignored)) {
    throw usage_error(
        fmt::format("resume_from_checkpoint: {} is no checkpoint of dtrain (it has no manifest.json)", wanted),
        "name a checkpoint-<step> folder, or \"latest\"");
  }
  const std::string damage = checkpoint_damage(folder);
  if (!damage.empty()) {
    throw data_error(fmt::format("checkpoint {} is damaged: {}", wanted, damage),
                     "choose an older one, or resume_from_checkpoint = \"latest\" for the newest intact one");
  }
  return folder;
}

void check_same_run(const TrainConfig& config, const fs::path& folder, const RunFacts& facts) {
  const fs::path path = folder / "train.toml";
  const TrainConfig saved = read_saved_config(read_file(path), path.string());
  std::string differences = identity_differences(saved, config);
  const auto differs = [&](const std::string& text) { differences += (differences.empty() ? "" : "; ") + text; };
  const Json manifest = read_manifest(folder);
  const Json known = manifest.value("facts", Json::object());
  if (const int ranks = known.value("world_size", facts.world_size); ranks != facts.world_size) {
    differs(fmt::format("{} ranks instead of {}", facts.world_size, ranks));
  }
  if (known.value("train_digest", facts.train_digest) != facts.train_digest) {
    differs("the training data, or how it is tokenised, has changed");
  }
  if (!differences.empty()) {
    throw disagree_error(fmt::format("cannot go on from {}: {}", folder.string(), differences),
                         "undo the change, or start a new run in another output_dir");
  }
  for (const Difference& difference : diff(saved, config)) {
    if (difference.setting_class != SettingClass::kSchedule) continue;
    log::info("resuming with {} = {} (was {})", difference.name, difference.b, difference.a);
  }
}

}  // namespace

std::optional<std::int64_t> batch_size_to_resume(const TrainConfig& config, HostComm& host) {
  if (!config.training.auto_find_batch_size || !config.training.resume_from_checkpoint) return std::nullopt;
  const std::string size = on_first_rank(host, "batch size to resume", [&] {
    const fs::path folder = choose_folder(config, CheckpointStore(expand_home(config.training.output_dir)));
    if (folder.empty()) return std::string();
    const fs::path path = folder / "train.toml";
    return std::to_string(read_saved_config(read_file(path), path.string()).training.per_device_train_batch_size);
  });
  if (size.empty()) return std::nullopt;
  return std::stoll(size);
}

std::string identity_differences(const TrainConfig& saved, const TrainConfig& current) {
  std::string text;
  for (const Difference& difference : diff(saved, current)) {
    if (difference.setting_class != SettingClass::kIdentity) continue;
    text += fmt::format("{}{} is {}, was {}", text.empty() ? "" : "; ", difference.name, difference.b, difference.a);
  }
  return text;
}

std::optional<fs::path> find_checkpoint(const TrainConfig& config, const CheckpointStore& store, const RunFacts& facts,
                                        HostComm& host) {
  if (!config.training.resume_from_checkpoint) return std::nullopt;
  const std::string folder = on_first_rank(host, "checkpoint to resume", [&] {
    const fs::path chosen = choose_folder(config, store);
    if (chosen.empty()) return std::string();
    std::error_code ignored;
    if (!fs::exists(chosen / kOptimizerFile, ignored)) {
      throw usage_error(fmt::format("cannot go on from {}: it was written with save_only_model and holds no optimizer",
                                    chosen.string()),
                        "to start a new run from its weights, set model.path to it and another output_dir");
    }
    check_same_run(config, chosen, facts);
    return chosen.string();
  });
  if (folder.empty()) return std::nullopt;
  return fs::path(folder);
}

}  // namespace dtrain
