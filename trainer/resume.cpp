#include "trainer/resume.h"

#include "configs/config_text.h"
#include "configs/load_config.h"
#include "core/error.h"
#include "core/file.h"
#include "core/log.h"
#include "datasets/sample_order.h"
#include "trainer/first_rank.h"

namespace dtrain {
namespace fs = std::filesystem;
namespace {

// Empty when there is none yet.
fs::path choose_folder(const TrainConfig& config, const CheckpointStore& store) {
  const std::string& wanted = *config.training.resume_from_checkpoint;
  if (wanted == "latest") {
    const std::optional<Checkpoint> latest = store.latest();
    return latest ? latest->folder : fs::path();
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

TrainConfig saved_config(const fs::path& folder) {
  const fs::path path = folder / "train.toml";
  return read_saved_config(read_file(path), path.string());
}

Json facts_of(const fs::path& folder) { return read_manifest(folder).value("facts", Json::object()); }

// The accumulation of `saved`, a run of `before` ranks, on `now` ranks.
std::int64_t accumulation_on(const TrainConfig& saved, int before, int now) {
  const TrainingConfig& training = saved.training;
  const std::int64_t micro_batches = training.gradient_accumulation_steps * before;
  if (micro_batches % now == 0) return micro_batches / now;
  throw usage_error(
      fmt::format(
          "cannot go on with {} ranks: a step of the checkpoint has {} examples = {} per device x {} accumulated "
          "x {} ranks, and {} x {} micro-batches cannot be divided among {} ranks",
          now, training.per_device_train_batch_size * micro_batches, training.per_device_train_batch_size,
          training.gradient_accumulation_steps, before, training.gradient_accumulation_steps, before, now),
      fmt::format("start a number of ranks that divides {}", micro_batches));
}

// With another number of ranks drop_last may drop other examples, and groups by length be others.
void check_same_steps(const TrainConfig& saved, const TrainConfig& config, int before, const RunFacts& facts) {
  if (config.training.reproducible || before == facts.world_size) return;
  const auto steps = [&](const TrainingConfig& training, int ranks) {
    const ShardOptions shard{.batch_size = training.per_device_train_batch_size,
                             .rank = 0,
                             .world_size = ranks,
                             .drop_last = training.dataloader_drop_last,
                             .even_batches = true};
    return step_arithmetic(facts.examples, shard, training.gradient_accumulation_steps, 1, 0).steps_per_epoch;
  };
  const std::int64_t was = steps(saved.training, before);
  const std::int64_t is = steps(config.training, facts.world_size);
  if (was != is) {
    throw usage_error(fmt::format("cannot go on with {} ranks: with dataloader_drop_last an epoch would have {} steps; "
                                  "the checkpoint's, of {} ranks, has {}",
                                  facts.world_size, is, before, was),
                      fmt::format("start {} ranks", before));
  }
  if (config.training.train_sampling_strategy == "group_by_length") {
    throw usage_error(fmt::format("cannot go on with {} ranks: the order of train_sampling_strategy = "
                                  "\"group_by_length\" depends on the number of ranks, which was {}",
                                  facts.world_size, before),
                      fmt::format("start {} ranks, or begin with reproducible = true", before));
  }
}

void check_same_run(const TrainConfig& config, const fs::path& folder, const RunFacts& facts) {
  TrainConfig saved = saved_config(folder);
  const Json known = facts_of(folder);
  const int ranks = known.value("world_size", facts.world_size);
  const std::int64_t accumulation = saved.training.gradient_accumulation_steps;
  saved.training.gradient_accumulation_steps = accumulation_on(saved, ranks, facts.world_size);
  std::string differences = identity_differences(saved, config);
  const auto differs = [&](const std::string& text) { differences += (differences.empty() ? "" : "; ") + text; };
  if (known.value("train_digest", facts.train_digest) != facts.train_digest) {
    differs("the training data, or how it is tokenised, has changed");
  }
  if (const std::string was = known.value("arithmetic", facts.arithmetic); was != facts.arithmetic) {
    differs(fmt::format("reproducible = true would not give the same bits on {}, it was {}", facts.arithmetic, was));
  }
  if (!differences.empty()) {
    throw disagree_error(fmt::format("cannot go on from {}: {}", folder.string(), differences),
                         "undo the change, or start a new run in another output_dir");
  }
  TrainConfig before = saved;
  before.training.gradient_accumulation_steps = accumulation;
  check_same_steps(before, config, ranks, facts);
  if (ranks != facts.world_size) {
    log::info(
        "resuming with {} ranks (was {}): gradient_accumulation_steps = {} (was {}), so that a step has {} "
        "examples as before",
        facts.world_size, ranks, config.training.gradient_accumulation_steps, accumulation,
        config.training.per_device_train_batch_size * accumulation * ranks);
  }
  for (const Difference& difference : diff(saved, config)) {
    if (difference.setting_class != SettingClass::kSchedule) continue;
    log::info("resuming with {} = {} (was {})", difference.name, difference.b, difference.a);
  }
}

}  // namespace

Json RunFacts::json() const {
  Json facts = {{"world_size", world_size}, {"train_digest", train_digest}};
  if (!arithmetic.empty()) facts["arithmetic"] = arithmetic;
  if (!accumulations.empty()) facts["accumulations"] = accumulations;
  return facts;
}

std::set<std::int64_t> accumulations_of(const fs::path& checkpoint) {
  const Json facts = facts_of(checkpoint);
  const auto found = facts.find("accumulations");
  if (found != facts.end()) return found->get<std::set<std::int64_t>>();
  return {saved_config(checkpoint).training.gradient_accumulation_steps};
}

TrainConfig config_to_resume(TrainConfig config, HostComm& host) {
  TrainingConfig& training = config.training;
  if (!training.resume_from_checkpoint) return config;
  const std::string found = on_first_rank(host, "settings to resume", [&] {
    const fs::path folder = choose_folder(config, CheckpointStore(expand_home(training.output_dir)));
    if (folder.empty()) return std::string();
    const TrainConfig saved = saved_config(folder);
    std::int64_t batch_size = training.per_device_train_batch_size;
    std::int64_t accumulation = training.gradient_accumulation_steps;
    if (training.auto_find_batch_size) batch_size = saved.training.per_device_train_batch_size;
    // Another accumulation than the run ever had is the user's own doing; find_checkpoint() judges it.
    if (accumulations_of(folder).contains(accumulation)) {
      accumulation = accumulation_on(saved, facts_of(folder).value("world_size", host.size()), host.size());
      if (accumulation != training.gradient_accumulation_steps) {
        log::info("gradient_accumulation_steps = {} instead of {}, which is for another number of ranks", accumulation,
                  training.gradient_accumulation_steps);
      }
    }
    return Json{batch_size, accumulation}.dump();
  });
  if (found.empty()) return config;
  const Json settings = parse_json(found, "settings to resume");
  training.per_device_train_batch_size = settings.at(0).get<std::int64_t>();
  training.gradient_accumulation_steps = settings.at(1).get<std::int64_t>();
  return config;
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
    if (chosen.empty()) {
      log::info("no checkpoint in {} yet: starting from the beginning", store.output_dir().string());
      return std::string();
    }
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
