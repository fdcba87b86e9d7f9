#include "trainer/plugin.h"

#include <string_view>

#include <dlfcn.h>

#include "core/error.h"

namespace dtrain {

std::string build_differences(const PluginBuild& plugin, const PluginBuild& program) {
  std::string text;
  const auto compare = [&](const char* what, std::string_view its, std::string_view ours) {
    if (its != ours) text += fmt::format("{}{} {}, not {}", text.empty() ? "" : "; ", what, its, ours);
  };
  compare("dtrain", plugin.dtrain, program.dtrain);
  compare("LibTorch", plugin.libtorch, program.libtorch);
  compare("compiler", plugin.compiler, program.compiler);
  // Says nothing to a reader when the versions differ anyway.
  if (text.empty() && plugin.layout != program.layout) text = "other headers of dtrain (their classes differ in size)";
  return text;
}

Registry load_plugin(const std::filesystem::path& path, const PluginBuild& expected) {
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(path, ignored)) {
    throw usage_error(fmt::format("model.plugin: {}: no such file", path.string()));
  }
  const std::string absolute = std::filesystem::absolute(path).string();  // else dlopen searches the library path
  // RTLD_LAZY: a plugin of another build should get as far as saying so.
  void* library = dlopen(absolute.c_str(), RTLD_LAZY | RTLD_LOCAL);
  if (library == nullptr) {
    throw usage_error(fmt::format("model.plugin: cannot load {}: {}", path.string(), dlerror()),
                      "build it for this machine against this installation of dtrain");
  }
  const auto* build = static_cast<const PluginBuild*>(dlsym(library, "dtrain_plugin_build"));
  using Register = void (*)(Registry&);
  const auto fill = reinterpret_cast<Register>(dlsym(library, "dtrain_plugin_register"));
  if (build == nullptr || fill == nullptr) {
    throw usage_error(fmt::format("model.plugin: {} is no plugin of dtrain", path.string()),
                      "it needs DTRAIN_PLUGIN(registry) { ... } of trainer/registry.h");
  }
  if (const std::string differences = build_differences(*build, expected); !differences.empty()) {
    throw usage_error(fmt::format("model.plugin: {} was built with {}", path.string(), differences),
                      "build it again against this installation of dtrain");
  }
  Registry registry;
  fill(registry);
  return registry;
}

}  // namespace dtrain
