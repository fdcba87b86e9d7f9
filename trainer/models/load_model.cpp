#include <cmath>
#include <optional>
#include <string_view>
#include <utility>

#include <ATen/CPUGeneratorImpl.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "core/error.h"
#include "core/json.h"
#include "trainer/models/bert.h"
#include "trainer/models/gpt2.h"
#include "trainer/models/model.h"
#include "trainer/models/model_config.h"
#include "trainer/models/weight_files.h"

namespace dtrain {
namespace {

// The initial weights of transformers: matrices and tables N(0, initializer_range), biases 0, norms 1. The projections
// that end a residual branch of GPT-2 are scaled by 1 / sqrt(2 layers) (Radford et al., 2019, section 2.3).
struct Initialization {
  double deviation = 0.02;
  double residual_deviation = 0.02;
  std::int64_t zero_row = -1;  // of BERT's word embeddings: the padding token
};

void initialize(const std::string& name, const at::Tensor& parameter, const Initialization& rule,
                at::Generator& generator) {
  at::Tensor values = parameter.detach();
  if (values.dim() == 1) {
    values.fill_(name.ends_with(".weight") ? 1 : 0);
    return;
  }
  values.normal_(0, name.ends_with(".c_proj.weight") ? rule.residual_deviation : rule.deviation, generator);
  if (name.ends_with(".word_embeddings.weight") && rule.zero_row >= 0) values.select(0, rule.zero_row).zero_();
}

// What a pretrained file may lack: it belongs to the task, not to the language model.
bool is_head(std::string_view name) {
  return name.starts_with("classifier.") || name.starts_with("score.") || name.starts_with("bert.pooler.");
}

std::pair<std::shared_ptr<Model>, Initialization> build(const Json& json, const std::filesystem::path& path,
                                                        const ModelOptions& options) {
  const std::string type = read_model_type(json, path);
  ClassifierConfig head = read_classifier_config(json, path, options);
  if (type == "bert") {
    const BertConfig config = read_bert_config(json, path, options);
    return {std::make_shared<BertForSequenceClassification>(config, std::move(head)),
            {config.initializer_range, config.initializer_range, config.pad_token_id}};
  }
  const Gpt2Config config = read_gpt2_config(json, path, options);
  const double residual = config.initializer_range / std::sqrt(2.0 * static_cast<double>(config.num_layers));
  return {std::make_shared<Gpt2ForSequenceClassification>(config, std::move(head)),
          {config.initializer_range, residual, -1}};
}

void check_backbone(const LoadReport& report, std::size_t num_parameters, const std::string& file) {
  if (report.missing.size() == num_parameters) {
    throw data_error(fmt::format("{}: none of its {} tensors belongs to the model that config.json describes", file,
                                 report.unexpected.size()),
                     "config.json and the weights do not belong together");
  }
  std::size_t lacking = 0;
  std::string first;
  for (const std::string& name : report.missing) {
    if (is_head(name)) continue;
    if (lacking++ == 0) first = name;
  }
  if (lacking == 0) return;
  throw data_error(fmt::format("{}: {} of the model's parameters are missing, the first is {}", file, lacking, first),
                   "config.json and the weights do not belong together; set random_init to train from scratch");
}

}  // namespace

LoadedModel load_model(const ModelOptions& options) {
  const std::filesystem::path path = options.folder / "config.json";
  auto [model, rule] = build(read_json_file(path), path, options);
  LoadedModel loaded{model, {}};
  const auto parameters = model->named_parameters();
  if (options.random_init) {
    for (const auto& entry : parameters) loaded.report.missing.push_back(entry.key());
  } else {
    const WeightFiles files(options.folder);
    loaded.report = copy_weights(files, *model);
    check_backbone(loaded.report, parameters.size(), files.description());
  }
  const c10::AutoGradMode no_gradient(false);
  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(options.seed);
  for (const std::string& name : loaded.report.missing) initialize(name, parameters[name], rule, generator);
  return loaded;
}

void load_weights(Model& model, const std::filesystem::path& folder) {
  const WeightFiles files(folder);
  const LoadReport report = copy_weights(files, model);
  if (!report.missing.empty()) {
    throw data_error(fmt::format("{}: {} of the model's parameters are missing, the first is {}", files.description(),
                                 report.missing.size(), report.missing.front()),
                     "the file was saved by another model or written incompletely");
  }
}

}  // namespace dtrain
