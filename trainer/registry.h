// Registry: models, collators and metrics by name, which a plugin (model.plugin) adds to dtrain's own for the settings
// model.name, data.collator and metrics.compute to use.
//
//   #include <trainer/registry.h>
//   DTRAIN_PLUGIN(registry) {
//     registry.add_model("my_cnn", [](const dtrain::ModelRequest& request) { return std::make_shared<MyCnn>(request);
//     });
//   }
//
// A plugin is a shared library, linked with dtrain::trainer. C++ has no binary interface between compilers and
// versions, so a plugin tells what it was built with, and any difference to the program refuses it before it does
// anything.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <torch/headeronly/version.h>

#include "configs/train_config.h"
#include "core/random.h"
#include "core/version.h"
#include "datasets/collators/collator.h"
#include "datasets/dataset.h"
#include "trainer/metrics/metric.h"
#include "trainer/models/model.h"

namespace dtrain {

// What a model is made for. The references live as long as the call.
struct ModelRequest {
  const TrainConfig& config;
  Task task = Task::kSequenceClassification;
  ProblemType problem_type = ProblemType::kSingleLabel;
  std::int64_t num_labels = 0;  // 0 for language models
  std::int64_t vocab_size = 0;
  std::int64_t pad_id = 0;
};

struct CollatorRequest {
  const TrainConfig& config;
  std::int64_t pad_id = 0;
};

struct MetricRequest {
  const std::string& spec;  // as metrics.compute has it: the name, and what may follow a colon
  const MetricScope& scope;
};

// Not thread-safe.
class Registry {
 public:
  // LibTorch's generator has been set to training.seed.
  using MakeModel = std::function<std::shared_ptr<Model>(const ModelRequest&)>;
  using MakeCollator = std::function<std::shared_ptr<const Collator>(const CollatorRequest&)>;
  using MakeMetric = std::function<std::unique_ptr<Metric>(const MetricRequest&)>;

  // A second one of a name, or a name that dtrain has itself, is Error(kUsage).
  void add_model(const std::string& name, MakeModel make);
  void add_collator(const std::string& name, MakeCollator make);
  void add_metric(const std::string& name, MakeMetric make);

  // nullptr when there is none of this name.
  [[nodiscard]] const MakeModel* find_model(const std::string& name) const;
  [[nodiscard]] const MakeCollator* find_collator(const std::string& name) const;
  [[nodiscard]] const MakeMetric* find_metric(const std::string& name) const;

  // "models my_cnn; collators none; metrics mine", for messages.
  [[nodiscard]] std::string text() const;

 private:
  std::map<std::string, MakeModel> models_;
  std::map<std::string, MakeCollator> collators_;
  std::map<std::string, MakeMetric> metrics_;
};

// What a plugin says about itself before anything of it runs: plain C, readable whatever it was built with.
struct PluginBuild {
  const char* dtrain;    // version
  const char* libtorch;  // version
  const char* compiler;  // version
  std::uint64_t layout;  // of the classes that cross the boundary, from their sizes
};

namespace internal {

// Changes with every size that a change of an interface is likely to change.
constexpr std::uint64_t layout_of_interface() {
  std::uint64_t layout = 1;  // raised by hand for changes that keep all sizes
  for (const std::size_t size :
       {sizeof(TrainConfig), sizeof(Batch), sizeof(Example), sizeof(CollateKey), sizeof(ModelOutput), sizeof(Model),
        sizeof(ModelRequest), sizeof(CollatorRequest), sizeof(MetricRequest), sizeof(MetricScope), sizeof(MetricState),
        sizeof(Predictions), sizeof(Registry), sizeof(Json), sizeof(OrderedJson)}) {
    layout = mix64(layout ^ size);
  }
  return layout;
}

// The compiler's version, and which of its two std::string types it uses.
constexpr const char* compiler_of_this() {
#if defined(_GLIBCXX_USE_CXX11_ABI) && !_GLIBCXX_USE_CXX11_ABI
  return __VERSION__ ", old strings";
#else
  return __VERSION__;
#endif
}

}  // namespace internal

// Of the code that includes this: each library has its own.
constexpr PluginBuild kThisBuild = {DTRAIN_VERSION, TORCH_VERSION, internal::compiler_of_this(),
                                    internal::layout_of_interface()};

}  // namespace dtrain

// Followed by the body of a function that fills `registry`, a dtrain::Registry&. Once in a plugin.
#define DTRAIN_PLUGIN(registry)                                                                                \
  extern "C" __attribute__((visibility("default"))) const ::dtrain::PluginBuild dtrain_plugin_build;           \
  const ::dtrain::PluginBuild dtrain_plugin_build = ::dtrain::kThisBuild;                                      \
  extern "C" __attribute__((visibility("default"))) void dtrain_plugin_register(::dtrain::Registry& registry); \
  void dtrain_plugin_register(::dtrain::Registry& registry)
