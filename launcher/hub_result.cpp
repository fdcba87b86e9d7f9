#include "launcher/hub_result.h"

#include <fmt/format.h>

#include "core/error.h"
#include "core/file.h"
#include "core/hub_folder.h"
#include "core/log.h"
#include "launcher/stop_signals.h"
#include "launcher/versions.h"
#include "trainer/checkpoint/run_json.h"
#include "trainer/first_rank.h"

namespace dtrain {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kHubData = "hf://datasets/";
constexpr double kForever = 1e9;  // seconds: an upload takes as long as it takes

std::string last_part(const std::string& name) { return name.substr(name.find_last_of('/') + 1); }

bool may_write_card(const fs::path& path) {
  std::error_code code;
  return !fs::exists(path, code) || is_generated_card(read_file(path));
}

// The newest evaluation so far.
OrderedJson last_evaluation(const std::vector<OrderedJson>& log_history) {
  for (auto record = log_history.rbegin(); record != log_history.rend(); ++record) {
    if (record->contains("eval_loss")) return *record;
  }
  return nullptr;
}

}  // namespace

ModelCardFacts card_facts(const TrainConfig& config, int world_size, bool on_gpu) {
  ModelCardFacts facts;
  const fs::path output_dir = fs::absolute(expand_home(config.training.output_dir)).lexically_normal();
  facts.name = config.training.hub_model_id
                   ? last_part(*config.training.hub_model_id)
                   : (output_dir.has_filename() ? output_dir : output_dir.parent_path()).filename().string();
  facts.task = config.model.task;
  facts.from_scratch = config.model.random_init || config.model.path.empty();
  const fs::path model_path = expand_home(config.model.path);
  std::error_code code;
  // A TorchScript file, unlike a folder, says nothing about itself.
  if (!facts.from_scratch && !fs::is_regular_file(model_path, code)) {
    facts.license = license_of(pretrained_folder(config.model.path));
    if (!fs::is_directory(model_path, code)) facts.base_model = config.model.path;
  }
  if (config.data.train.starts_with(kHubData)) {
    const std::string rest = config.data.train.substr(kHubData.size());
    facts.dataset = rest.substr(0, rest.find('/', rest.find('/') + 1));
  }
  facts.hyperparameters = card_hyperparameters(config, world_size, on_gpu);
  for (const auto& [name, version] : versions()) {
    if (name == "dtrain" || name == "LibTorch") facts.versions.emplace_back(name, version);
  }
  return facts;
}

std::shared_ptr<HubPusher> make_hub_pusher(const TrainConfig& config, const ModelCardFacts& facts,
                                           const fs::path& output_dir) {
  const TrainingConfig& training = config.training;
  if (!training.push_to_hub) return nullptr;
  const fs::path folder = fs::absolute(output_dir).lexically_normal();
  HubPushOptions options{.target = {.repo = *training.hub_model_id,
                                    .revision = training.hub_revision,
                                    .is_private = training.hub_private_repo,
                                    .program = require_hub(),
                                    .log = folder / "hub.log"},
                         .strategy = training.hub_strategy,
                         .always_push = training.hub_always_push,
                         .output_dir = folder,
                         .card = [facts, folder](const TrainerState& state) -> std::string {
                           if (!may_write_card(folder / "README.md")) return "";
                           ModelCardFacts now = facts;
                           now.log_history = state.log_history;
                           now.results = last_evaluation(state.log_history);
                           return model_card(now);
                         }};
  return std::make_shared<HubPusher>(std::move(options));
}

void write_model_card(const fs::path& output_dir, const ModelCardFacts& facts) {
  const fs::path path = output_dir / "README.md";
  try {
    if (may_write_card(path)) {
      replace_file(path, model_card(facts));
    } else {
      log::info("{} stays as it is: it is not one that dtrain wrote", path.string());
    }
  } catch (const Error& error) {
    log::warning("no model card: {}", error.what());
  }
}

void push_result(HubPusher* pusher, const TrainingConfig& training,
                 const std::vector<std::pair<std::string, std::string>>& tokenizer_files, HostComm& host) {
  const fs::path output_dir = expand_home(training.output_dir);
  host.set_deadline(kForever);
  on_first_rank(host, "upload to the Hub", [&] {
    std::vector<std::string> files = {"README.md",         "config.json",        "generation_config.json",
                                      "model.safetensors", "trainer_state.json", "train_results.json",
                                      "eval_results.json", "all_results.json",   "runs/*",
                                      "model.pt"};
    for (const auto& [name, content] : tokenizer_files) files.push_back(name);
    std::erase_if(files, [&](const std::string& name) {
      std::error_code code;
      return !fs::exists(output_dir / (name == "runs/*" ? "runs" : name), code);
    });
    const std::string failure = pusher->push_result(std::move(files), [] { return StopSignals::received() != 0; });
    if (std::optional<RunRecord> record = read_run_record(output_dir)) {
      record->hub = failure.empty() ? "uploaded" : "failed: " + failure;
      write_run_record(output_dir, *record);
    }
    return std::string();
  });
  host.set_deadline(static_cast<double>(training.ddp_timeout));
}

}  // namespace dtrain
