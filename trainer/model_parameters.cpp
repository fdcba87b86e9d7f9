#include "trainer/model_parameters.h"

#include <algorithm>
#include <set>
#include <string>

#include "core/error.h"

namespace dtrain {
namespace {

// Full names of the parameters that sit directly in a LayerNorm module.
std::set<std::string> layer_norm_parameters(const Model& model) {
  std::set<std::string> names;
  for (const auto& module : model.named_modules("", /*include_self=*/true)) {
    if (module.value()->name().find("LayerNorm") == std::string::npos) continue;
    for (const auto& parameter : module.value()->named_parameters(/*recurse=*/false)) {
      names.insert(module.key().empty() ? parameter.key() : module.key() + "." + parameter.key());
    }
  }
  return names;
}

bool is_embedding_table(const std::string& name) {
  return name.ends_with("_embeddings.weight") || name.ends_with("wte.weight") || name.ends_with("wpe.weight");
}

}  // namespace

void freeze_parameters(const Model& model, const std::vector<std::string>& patterns) {
  if (patterns.empty()) return;
  const auto parameters = model.named_parameters();
  std::vector<std::string> names;
  for (const auto& entry : parameters) names.push_back(model.stored_name(entry.key()));
  const std::vector<bool> frozen = matching_names(patterns, names, "training.freeze");
  if (std::find(frozen.begin(), frozen.end(), false) == frozen.end()) {
    throw usage_error("training.freeze: every parameter is frozen, so there is nothing to train",
                      "leave a part of the model out of it, for example \"classifier.*\"");
  }
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (frozen[i]) parameters[i].value().set_requires_grad(false);
  }
}

std::vector<NamedParameter> optimizer_parameters(const Model& model) {
  const std::set<std::string> layer_norm = layer_norm_parameters(model);
  std::vector<NamedParameter> parameters;
  for (const auto& entry : model.named_parameters()) {
    if (!entry.value().requires_grad()) continue;
    const bool decay = name_is_decayed(entry.key()) && !layer_norm.contains(entry.key());
    parameters.push_back({model.stored_name(entry.key()), entry.value(), decay});
  }
  std::stable_partition(parameters.begin(), parameters.end(), [](const NamedParameter& each) { return each.decay; });
  return parameters;
}

std::int64_t trainable_elements(const Model& model) {
  std::int64_t count = 0;
  for (const at::Tensor& parameter : model.parameters()) count += parameter.requires_grad() ? parameter.numel() : 0;
  return count;
}

std::int64_t computing_parameters(const Model& model) {
  std::int64_t count = 0;
  for (const auto& entry : model.named_parameters())
    count += is_embedding_table(entry.key()) ? 0 : entry.value().numel();
  return count;
}

}  // namespace dtrain
