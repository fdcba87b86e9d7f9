#include "launcher/inputs.h"

#include <filesystem>

#include <ATen/Context.h>
#include <fmt/format.h>

#include "core/clock.h"
#include "core/digest.h"
#include "core/error.h"
#include "core/file.h"
#include "core/hub_folder.h"
#include "core/log.h"
#include "datasets/readers/source_files.h"
#include "datasets/token_data.h"
#include "dist/agreement.h"
#include "launcher/task_inputs.h"
#include "launcher/token_progress.h"
#include "trainer/models/script_model.h"
#include "trainer/plugin.h"

namespace dtrain {
namespace fs = std::filesystem;
namespace {

// The padding id, and whether the settings rather than the tokenizer's files name it.
struct Padding {
  std::int64_t id = 0;
  std::optional<std::string> named;  // the token, when the settings name it
  bool is_known = true;              // false: the model has none, and shall have none
};

Padding choose_padding(const TokenizerConfig& settings, const Tokenizer& tokenizer, Task task) {
  if (!settings.pad_token) {
    if (const auto id = tokenizer.pad_id()) return {*id, std::nullopt};
    // Blocks are all of one length, and padding is never read.
    if (task == Task::kCausalLm) return {tokenizer.eos_id().value_or(0), std::nullopt, false};
    throw usage_error(fmt::format("the tokenizer in {} has no padding token", *settings.path),
                      "set tokenizer.pad_token = \"eos\", or to a token of the vocabulary");
  }
  if (*settings.pad_token == "eos") {
    const auto id = tokenizer.eos_id();
    if (!id) {
      throw usage_error(
          fmt::format("tokenizer.pad_token: the tokenizer in {} has no end-of-text token", *settings.path),
          "name a token of the vocabulary");
    }
    return {*id, tokenizer.id_to_token(*id)};
  }
  const auto id = tokenizer.token_to_id(*settings.pad_token);
  if (!id) {
    throw usage_error(fmt::format("tokenizer.pad_token: the tokenizer in {} has no token \"{}\"", *settings.path,
                                  *settings.pad_token),
                      "name a token of the vocabulary, or \"eos\"");
  }
  return {*id, *settings.pad_token};
}

std::vector<std::pair<std::string, std::string>> read_tokenizer_files(const Tokenizer& tokenizer,
                                                                      const Padding& padding) {
  constexpr std::string_view kConfigName = "tokenizer_config.json";
  std::vector<std::pair<std::string, std::string>> files;
  bool has_config = false;
  for (const fs::path& path : tokenizer.files()) {
    std::string content = read_file(path);
    if (path.filename() == kConfigName && padding.named) {
      Json json = parse_json(content, path.string());
      json["pad_token"] = *padding.named;
      content = json.dump(2) + "\n";
      has_config = true;
    }
    files.emplace_back(path.filename().string(), std::move(content));
  }
  if (padding.named && !has_config) {
    files.emplace_back(kConfigName, OrderedJson{{"pad_token", *padding.named}}.dump(2) + "\n");
  }
  return files;
}

// Relatives share the kind of their vocabularies: word pieces or byte pairs.
std::string_view vocabulary_kind(std::string_view model_type) {
  return model_type == "bert" || model_type == "distilbert" ? "bert" : "gpt2";
}

// Before anything is loaded: `model_json` is the model's config.json.
void check_fit(const Json& model_json, const Tokenizer& tokenizer, const TrainConfig& config) {
  const auto size = model_json.find("vocab_size");
  const auto type = model_json.find("model_type");
  // load_model() says what is wrong with a config.json that lacks these.
  if (size == model_json.end() || !size->is_number_integer() || type == model_json.end() || !type->is_string()) return;
  const auto vocab_size = size->get<std::int64_t>();
  const auto model_type = type->get<std::string>();
  const bool too_large = tokenizer.vocab_size() > vocab_size;
  const bool other_kind =
      !tokenizer.kind().empty() && tokenizer.kind() != vocabulary_kind(model_type) && !config.model.random_init;
  if (!too_large && !other_kind) return;
  throw data_error(
      fmt::format("tokenizer of another model: the tokenizer in {} ({}, {} tokens) does not fit the model in {} ({}, "
                  "{} tokens)",
                  *config.tokenizer.path, tokenizer.kind().empty() ? "kind unknown" : tokenizer.kind(),
                  tokenizer.vocab_size(), config.model.path, model_type, vocab_size),
      "use the tokenizer that the model was trained with: leave tokenizer.path out when it lies in model.path");
}

std::int64_t choose_max_length(const TrainConfig& config, const Model& model) {
  if (model.max_positions() == 0) {
    if (config.tokenizer.max_length) return *config.tokenizer.max_length;
    throw usage_error(fmt::format("tokenizer.max_length: missing, and the model \"{}\" has no limit of its own",
                                  config.model.name.value_or(config.model.path)),
                      "set it to the number of tokens after which texts are cut");
  }
  const std::int64_t wanted = config.tokenizer.max_length.value_or(model.max_positions());
  if (wanted > model.max_positions()) {
    throw usage_error(fmt::format("tokenizer.max_length is {}, but the model in {} reads at most {} tokens", wanted,
                                  config.model.path, model.max_positions()),
                      fmt::format("set tokenizer.max_length = {} or less", model.max_positions()));
  }
  return wanted;
}

LoadedModel load_hub_model(const TrainConfig& config, const Inputs& inputs, const fs::path& folder,
                           const Problem& problem, const Padding& padding) {
  return load_model({.folder = folder,
                     .task = inputs.task,
                     .num_labels = problem.num_labels,
                     .label_names = config.data.labels,
                     .problem_type = problem.type,
                     .dropout = config.model.dropout.value_or(-1),
                     .pad_token_id = padding.is_known ? padding.id : -1,
                     .seed = static_cast<std::uint64_t>(config.training.seed),
                     .random_init = config.model.random_init,
                     .label_smoothing = config.training.label_smoothing_factor,
                     .gradient_checkpointing = config.training.gradient_checkpointing,
                     .neftune_noise_alpha = config.training.neftune_noise_alpha.value_or(0),
                     .compute_padding = config.model.compute_padding});
}

// config.json of a model that is not the Hub's: what evaluation and prediction must know of it later.
Json own_model_json(const TrainConfig& config, const Problem& problem) {
  Json json = Json::object();
  if (config.model.name) json["dtrain_model"] = *config.model.name;
  if (problem.num_labels == 0) return json;
  constexpr const char* kTypes[] = {"single_label_classification", "multi_label_classification", "regression"};
  json["problem_type"] = kTypes[static_cast<std::size_t>(problem.type)];
  for (std::int64_t label = 0; label < problem.num_labels; ++label) {
    const auto index = static_cast<std::size_t>(label);
    json["id2label"][std::to_string(label)] =
        index < config.data.labels.size() ? config.data.labels[index] : fmt::format("LABEL_{}", label);
  }
  return json;
}

// The model model.name of the plugin. `folder` may be empty: then it begins with its own weights.
std::shared_ptr<Model> make_plugin_model(const TrainConfig& config, const Inputs& inputs, const fs::path& folder,
                                         const Problem& problem, const Padding& padding) {
  const Registry::MakeModel* make = inputs.registry.find_model(*config.model.name);
  if (make == nullptr) {
    throw usage_error(fmt::format("model.name: {} has no model \"{}\"", *config.model.plugin, *config.model.name),
                      fmt::format("it has: {}", inputs.registry.text()));
  }
  at::manual_seed(static_cast<std::uint64_t>(config.training.seed));
  std::shared_ptr<Model> model = (*make)({.config = config,
                                          .task = inputs.task,
                                          .problem_type = problem.type,
                                          .num_labels = problem.num_labels,
                                          .vocab_size = inputs.tokenizer->vocab_size(),
                                          .pad_id = padding.id});
  if (!model) throw usage_error(fmt::format("the plugin made no model \"{}\"", *config.model.name));
  model->describe(own_model_json(config, problem));
  if (!folder.empty() && !config.model.random_init) load_weights(*model, folder);
  return model;
}

// The model of a TorchScript file. `folder` holds newer weights, or is empty.
std::shared_ptr<Model> make_script_model(const TrainConfig& config, const fs::path& file, const Inputs& inputs,
                                         const fs::path& folder, const Problem& problem) {
  if (inputs.task != Task::kSequenceClassification || config.model.random_init) {
    throw usage_error(fmt::format("model.path: {} is TorchScript, which trains for sequence-classification, from its "
                                  "own weights",
                                  file.string()),
                      "leave out model.task and model.random_init");
  }
  std::shared_ptr<Model> model = load_script_model(file, {.problem_type = problem.type,
                                                          .num_labels = problem.num_labels,
                                                          .label_smoothing = config.training.label_smoothing_factor});
  model->describe(own_model_json(config, problem));
  if (!folder.empty()) load_weights(*model, folder);
  return model;
}

// Collective. Builds on one rank per node, then opens on all.
std::shared_ptr<const Dataset> load_data(const TokenDataOptions& options, const World& world, HostComm& host,
                                         const std::string& name, Inputs& inputs) {
  const Tokenizer& tokenizer = *inputs.tokenizer;
  const Stopwatch watch;
  LoadedData loaded{.name = name, .files = source_files(options.reader).files.size()};
  std::shared_ptr<const Dataset> data;
  if (world.is_first_on_node()) {
    TokenDisplay display(fmt::format("tokenizing {} data", name), world.is_first());
    const auto progress = [&](std::int64_t done, std::int64_t total) {
      loaded.built = true;
      display.show(done, total);
    };
    data = load_token_data(options, tokenizer, /*may_build=*/true, progress, &loaded.store);
  }
  host.barrier("token store of the " + name + " data");
  if (!data) data = load_token_data(options, tokenizer, /*may_build=*/false, {}, &loaded.store);
  loaded.seconds = watch.seconds();
  inputs.loaded.push_back(std::move(loaded));
  return data;
}

}  // namespace

Problem problem_of(const ModelConfig& settings, const Json& model_json) {
  Problem problem;
  if (settings.num_labels) {
    problem.num_labels = *settings.num_labels;
  } else if (const auto names = model_json.find("id2label"); names != model_json.end() && names->is_object()) {
    problem.num_labels = static_cast<std::int64_t>(names->size());
  }
  std::string type;
  if (settings.problem_type) {
    type = *settings.problem_type;
  } else if (const auto stored = model_json.find("problem_type"); stored != model_json.end() && stored->is_string()) {
    type = stored->get<std::string>();
  } else {
    type = problem.num_labels == 1 ? "regression" : "single_label_classification";
  }
  if (type == "regression") {
    problem.type = ProblemType::kRegression;
  } else if (type == "multi_label_classification") {
    problem.type = ProblemType::kMultiLabel;
  } else if (type != "single_label_classification") {
    throw data_error(fmt::format("config.json of the model: problem_type \"{}\" is not known", type),
                     "set model.problem_type");
  }
  return problem;
}

Inputs load_inputs(const TrainConfig& config, const World& world, HostComm& host, int threads,
                   const InputsWanted& wanted) {
  Inputs inputs;
  if (config.model.plugin) inputs.registry = load_plugin(expand_home(*config.model.plugin));
  const std::optional<fs::path> script = script_file(expand_home(config.model.path));
  const bool has_folder = !config.model.path.empty() && script != expand_home(config.model.path);
  const fs::path model_folder = has_folder ? pretrained_folder(config.model.path) : fs::path();
  const Json model_json = model_folder.empty() ? Json::object() : read_json_file(model_folder / "config.json");
  inputs.task = task_named(config.model.task);
  // Tokens have one class each, whatever config.json says of the texts.
  Problem problem = inputs.task == Task::kSequenceClassification
                        ? problem_of(config.model, model_json)
                        : Problem{.num_labels = problem_of(config.model, Json::object()).num_labels};
  inputs.problem_type = problem.type;
  if (config.training.label_smoothing_factor > 0 && problem.type != ProblemType::kSingleLabel) {
    throw usage_error("training.label_smoothing_factor: only problems with one class an example have labels to smooth",
                      "set it to 0, or change model.problem_type");
  }
  inputs.tokenizer = load_tokenizer(pretrained_folder(*config.tokenizer.path));
  const Padding padding = choose_padding(config.tokenizer, *inputs.tokenizer, inputs.task);
  if (config.model.name || script) {
    if (is_language_model(inputs.task)) {
      problem.num_labels = 0;
    } else if (problem.num_labels == 0) {
      problem.num_labels = problem.type == ProblemType::kRegression ? 1 : 2;
    }
    inputs.model = script ? make_script_model(config, *script, inputs, model_folder, problem)
                          : make_plugin_model(config, inputs, model_folder, problem, padding);
  } else {
    check_fit(model_json, *inputs.tokenizer, config);
    LoadedModel loaded = load_hub_model(config, inputs, model_folder, problem, padding);
    inputs.model = std::move(loaded.model);
    inputs.report = std::move(loaded.report);
  }
  if (!is_language_model(inputs.task)) {
    inputs.num_labels = static_cast<std::int64_t>(inputs.model->config_json().at("id2label").size());
  }
  inputs.max_length = choose_max_length(config, *inputs.model);
  inputs.tokenizer_files = read_tokenizer_files(*inputs.tokenizer, padding);
  if (is_language_model(inputs.task)) {
    if (const auto path = generation_file(config, model_folder)) {
      inputs.tokenizer_files.emplace_back("generation_config.json", read_file(*path));
    }
  }
  inputs.collator = make_collator(config, inputs, static_cast<std::int32_t>(padding.id));

  TokenDataOptions options = token_data_options(config, inputs);
  options.threads = threads;
  if (config.data.eval_fraction) options.held_out = {.fraction = *config.data.eval_fraction, .rest = true};
  if (wanted.train_data) inputs.train_data = load_data(options, world, host, "training", inputs);
  options.held_out.rest = false;
  if (config.data.eval || config.data.eval_fraction) {
    if (config.data.eval) options.reader.path = expand_home(*config.data.eval);
    options.samples = config.data.eval_samples;
    options.reader.has_labels = options.reader.has_labels && wanted.eval_labels;
    inputs.eval_data = load_data(options, world, host, "evaluation", inputs);
  }
  agree(host, "data",
        {{"plugin", config.model.plugin ? digest_of_file(expand_home(*config.model.plugin)) : "none"},
         {"tokenizer", inputs.tokenizer->digest()},
         {"training data", inputs.train_data ? inputs.train_data->digest() : "none"},
         {"evaluation data", inputs.eval_data ? inputs.eval_data->digest() : "none"}});
  return inputs;
}

}  // namespace dtrain
