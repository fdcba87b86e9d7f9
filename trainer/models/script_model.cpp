#include "trainer/models/script_model.h"

#include <set>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <fmt/ranges.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/serialization/import.h>

#include "core/error.h"
#include "core/file.h"
#include "trainer/models/transformer.h"

namespace dtrain {
namespace {

constexpr const char* kScriptName = "model.pt";
constexpr const char* kModelType = "torchscript";

std::string first_line(const c10::Error& error) {
  const std::string text = error.what_without_backtrace();
  return text.substr(0, text.find('\n'));
}

class ScriptModel final : public Model {
 public:
  ScriptModel(torch::jit::Module script, HeadConfig head, std::string file)
      : script_(std::move(script)), head_(std::move(head)), file_(std::move(file)) {
    std::set<const void*> known;
    mirror(*this, script_, known);
  }

  [[nodiscard]] ModelOutput forward(const Batch& batch) override {
    const at::Tensor logits = logits_of(script_.forward({batch["input_ids"], batch["attention_mask"]}));
    const bool fits = logits.dim() == 2 && logits.size(0) == batch.size && logits.size(1) == head_.num_labels;
    if (!fits) {
      throw data_error(fmt::format("{}: forward gives logits [{}] for {} texts and {} labels", file_,
                                   fmt::join(logits.sizes(), ", "), batch.size, head_.num_labels),
                       "set model.num_labels to the number of outputs");
    }
    ModelOutput output;
    output.logits = logits;
    return batch.has("labels") ? output_of(sequence_losses(head_, logits, batch), logits, batch) : output;
  }

  void train(bool on) override {
    Model::train(on);
    script_.train(on);
  }
  [[nodiscard]] std::string model_type() const override { return kModelType; }
  [[nodiscard]] std::vector<std::pair<std::string, std::string>> files() const override {
    std::ostringstream stream;
    script_.save(stream);
    return {{kScriptName, stream.str()}};
  }

 private:
  // The same tensors, under the same names, in modules that the trainer can walk. A tensor of two names keeps the
  // first.
  void mirror(torch::nn::Module& to, const torch::jit::Module& from, std::set<const void*>& known) const {
    for (const auto& each : from.named_parameters(/*recurse=*/false)) {
      if (!known.insert(each.value.unsafeGetTensorImpl()).second) continue;
      if (each.value.scalar_type() != at::kFloat) {
        throw data_error(fmt::format("{}: parameter {:?} has type {}; dtrain trains float32", file_, each.name,
                                     c10::toString(each.value.scalar_type())),
                         "save the model in float32");
      }
      to.register_parameter(each.name, each.value, each.value.requires_grad());
    }
    for (const auto& each : from.named_buffers(/*recurse=*/false)) {
      if (known.insert(each.value.unsafeGetTensorImpl()).second) to.register_buffer(each.name, each.value);
    }
    for (const auto& child : from.named_children()) {
      mirror(*to.register_module(child.name, std::make_shared<torch::nn::Module>()), child.value, known);
    }
  }

  [[nodiscard]] at::Tensor logits_of(const c10::IValue& value) const {
    if (value.isTensor()) return value.toTensor();
    if (value.isTuple() && !value.toTupleRef().elements().empty() && value.toTupleRef().elements()[0].isTensor()) {
      return value.toTupleRef().elements()[0].toTensor();
    }
    if (value.isGenericDict() && value.toGenericDict().contains("logits")) {
      return value.toGenericDict().at("logits").toTensor();
    }
    throw data_error(fmt::format("{}: forward gives {}, not logits", file_, value.tagKind()),
                     "return the logits, a tuple that begins with them, or a dictionary with \"logits\"");
  }

  torch::jit::Module script_;
  HeadConfig head_;
  std::string file_;
};

}  // namespace

std::optional<std::filesystem::path> script_file(const std::filesystem::path& path) {
  std::error_code ignored;
  if (path.extension() == ".pt" && std::filesystem::is_regular_file(path, ignored)) return path;
  if (path.empty()) return std::nullopt;
  if (!std::filesystem::is_regular_file(path / kScriptName, ignored)) return std::nullopt;
  if (!std::filesystem::is_regular_file(path / "config.json", ignored)) return std::nullopt;
  const Json config = read_json_file(path / "config.json");
  if (!config.is_object() || config.value("model_type", Json()) != kModelType) return std::nullopt;
  return path / kScriptName;
}

std::shared_ptr<Model> load_script_model(const std::filesystem::path& file, const ScriptOptions& options) {
  HeadConfig head;
  head.problem_type = options.problem_type;
  head.num_labels = options.num_labels;
  head.label_smoothing = options.label_smoothing;
  try {
    return std::make_shared<ScriptModel>(torch::jit::load(file.string(), at::kCPU), std::move(head), file.string());
  } catch (const c10::Error& error) {
    throw data_error(fmt::format("{}: cannot be read as TorchScript: {}", file.string(), first_line(error)),
                     "write it with torch.jit.script(model).save(path)");
  }
}

}  // namespace dtrain
