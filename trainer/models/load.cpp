#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include <c10/core/GradMode.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "core/error.h"
#include "core/file.h"
#include "trainer/models/bart.h"
#include "trainer/models/bert.h"
#include "trainer/models/gpt2.h"
#include "trainer/models/model.h"
#include "trainer/models/model_contents.h"
#include "trainer/models/weight_files.h"

namespace dtrain {
namespace {

bool ends_with_any(const std::string& name, std::initializer_list<const char*> endings) {
  return std::any_of(endings.begin(), endings.end(), [&](const char* ending) { return name.ends_with(ending); });
}

// Buffers that older versions of transformers stored among the weights.
bool is_old_buffer(const std::string& name) {
  return ends_with_any(name,
                       {".attn.bias", ".attn.masked_bias", "embeddings.position_ids", "embeddings.token_type_ids"});
}

// The names of TensorFlow's LayerNorm, which files converted from it still have.
std::string modern_name(std::string name) {
  const auto rename = [&](const std::string& old_end, const std::string& new_end) {
    if (name.ends_with(old_end)) name.replace(name.size() - old_end.size(), old_end.size(), new_end);
  };
  rename("LayerNorm.gamma", "LayerNorm.weight");
  rename("LayerNorm.beta", "LayerNorm.bias");
  return name;
}

std::string shape_text(at::IntArrayRef shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

using Parameters = std::map<std::string, at::Tensor>;  // name in the file -> parameter or buffer

Parameters parameters_by_stored_name(const Model& model) {
  Parameters result;
  for (const auto& item : model.named_parameters()) result.emplace(model.stored_name(item.key()), item.value());
  for (const auto& item : model.named_buffers()) result.emplace(model.stored_name(item.key()), item.value());
  return result;
}

void copy_into(at::Tensor parameter, const std::string& name, const std::string& stored, const WeightFiles& files) {
  const at::Tensor value = files.tensor(stored);
  const std::string where = fmt::format("{}: tensor {:?}", files.path_of(stored), stored);
  if (!parameter.is_floating_point() && value.scalar_type() != parameter.scalar_type()) {
    throw data_error(fmt::format("{} has type {}; {} is {}", where, c10::toString(value.scalar_type()), name,
                                 c10::toString(parameter.scalar_type())));
  }
  if (parameter.is_floating_point() && !value.is_floating_point()) {
    throw data_error(
        fmt::format("{} has type {}; {} needs floating-point numbers", where, c10::toString(value.scalar_type()), name),
        "quantised weights cannot be trained; use the original model");
  }
  if (value.sizes() != parameter.sizes()) {
    throw data_error(fmt::format("{} has shape {}, and config.json asks for {}", where, shape_text(value.sizes()),
                                 shape_text(parameter.sizes())),
                     "config.json and the weights must come from the same model");
  }
  parameter.copy_(value);
}

// Which tensor of the files goes to which parameter. Names may lack the prefix of the base model.
struct Assignment {
  std::map<std::string, std::string> source;  // parameter -> tensor
  std::vector<std::string> unexpected;
};

Assignment assign(const Parameters& parameters, const TransformerModel* model, const WeightFiles& files) {
  const std::string prefix = model == nullptr ? "" : model->base_prefix();
  Assignment result;
  for (const std::string& stored : files.names()) {
    if (is_old_buffer(stored) || (model != nullptr && model->is_tied_copy(stored))) continue;
    if (model != nullptr && model->must_be_zero(stored)) {
      if (files.tensor(stored).count_nonzero().item<std::int64_t>() == 0) continue;
      throw data_error(
          fmt::format("{}: tensor {:?} has other values than 0, which is not supported", files.path_of(stored), stored),
          "train such a model with transformers");
    }
    std::string name = modern_name(stored);
    if (!parameters.contains(name)) name = prefix + name;
    if (!parameters.contains(name)) {
      result.unexpected.push_back(stored);
      continue;
    }
    const auto [earlier, inserted] = result.source.emplace(name, stored);
    if (!inserted) {
      throw data_error(
          fmt::format("{}: tensors {:?} and {:?} are both meant for {}", files.path(), earlier->second, stored, name),
          "remove one of the two");
    }
  }
  return result;
}

void check_head(const TransformerModel& model, const Parameters& parameters, const Assignment& assignment,
                const WeightFiles& files) {
  if (is_language_model(model.task())) return;
  const auto source = assignment.source.find(model.head_weight());
  if (source == assignment.source.end()) return;
  const at::Tensor stored = files.tensor(source->second);
  const std::int64_t wanted = parameters.at(model.head_weight()).size(0);
  if (stored.dim() != 2 || stored.size(0) == wanted) return;
  throw data_error(fmt::format("{}: the stored classification head {:?} has {} labels but the model shall have {}",
                               files.path_of(source->second), source->second, stored.size(0), wanted),
                   fmt::format("set model.num_labels = {}, or start from a model without this head", stored.size(0)));
}

LoadReport read_weights(TransformerModel& model, const ModelOptions& options) {
  const at::NoGradGuard no_grad;
  const Parameters parameters = parameters_by_stored_name(model);
  LoadReport report;
  Assignment assignment;
  std::unique_ptr<WeightFiles> files;
  if (!options.random_init) {
    files = std::make_unique<WeightFiles>(options.folder);
    assignment = assign(parameters, &model, *files);
    check_head(model, parameters, assignment, *files);
    report.unexpected = assignment.unexpected;
  }

  std::vector<std::string> lacking;  // that a pretrained model must have
  std::size_t num_required = 0;
  for (const auto& [name, parameter] : parameters) {
    if (!assignment.source.contains(name)) report.missing.push_back(name);
    if (model.may_be_missing(name)) continue;
    ++num_required;
    if (!assignment.source.contains(name)) lacking.push_back(name);
  }
  if (!options.random_init && !lacking.empty()) {
    const bool nothing = lacking.size() == num_required;
    throw data_error(nothing ? fmt::format("{}: no tensor belongs to a {} model (the first is {:?})", files->path(),
                                           model.model_type(), files->names().empty() ? "" : files->names().front())
                             : fmt::format("{}: {} of the {} tensors of the model are missing, the first is {:?}",
                                           files->path(), lacking.size(), num_required, lacking.front()),
                     "config.json and the weights must come from the same model");
  }

  for (const auto& [name, parameter] : parameters) {
    const auto source = assignment.source.find(name);
    if (source == assignment.source.end()) {
      draw_parameter(parameter, name, model.initial_value(name), options.seed);
    } else {
      copy_into(parameter, name, source->second, *files);
    }
  }
  return report;
}

}  // namespace

LoadedModel load_model(const ModelOptions& options) {
  const std::filesystem::path path = options.folder / "config.json";
  if (!std::filesystem::exists(path)) {
    throw data_error(path.string() + ": no such file", "give the folder of a model: config.json and model.safetensors");
  }
  if (options.dropout > 1) throw usage_error(fmt::format("dropout = {} is not a probability", options.dropout));
  const Json json = read_json_file(path);
  std::shared_ptr<TransformerModel> model;
  const std::string type = read_model_type(json, path);
  if (type == "bart") {
    model = std::make_shared<BartModel>(read_bart_config(json, path, options), read_head_config(json, path, options));
  } else if (type == "gpt2") {
    model = std::make_shared<Gpt2Model>(read_gpt2_config(json, path, options), read_head_config(json, path, options));
  } else {
    model =
        std::make_shared<BertModel>(read_encoder_config(json, path, options), read_head_config(json, path, options));
  }
  LoadReport report = read_weights(*model, options);
  return {std::move(model), std::move(report)};
}

void load_weights(Model& model, const std::filesystem::path& folder) {
  const at::NoGradGuard no_grad;
  const WeightFiles files(folder);
  const Parameters parameters = parameters_by_stored_name(model);
  const Assignment assignment = assign(parameters, dynamic_cast<const TransformerModel*>(&model), files);
  for (const auto& [name, parameter] : parameters) {
    if (!assignment.source.contains(name)) {
      throw data_error(fmt::format("{}: tensor {:?} is missing", files.path(), name),
                       "the weights must be those of a saved model of the same kind");
    }
  }
  for (const auto& [name, parameter] : parameters) copy_into(parameter, name, assignment.source.at(name), files);
}

ModelContents contents_of(const Model& model) {
  ModelContents contents;
  for (const auto& [name, value] : parameters_by_stored_name(model)) {
    contents.tensors.emplace_back(name, value.detach());
  }
  contents.files = model.files();
  contents.files.emplace(contents.files.begin(), "config.json", model.config_json().dump(2) + "\n");
  return contents;
}

void write_model(const ModelContents& contents, const std::filesystem::path& folder) {
  write_safetensors(folder / "model.safetensors", contents.tensors, {{"format", "pt"}});
  for (const auto& [name, content] : contents.files) write_file_synced(folder / name, content);
  sync_folder(folder);
}

void save_model(const Model& model, const std::filesystem::path& folder) {
  std::filesystem::create_directories(folder);
  write_model(contents_of(model), folder);
}

}  // namespace dtrain
