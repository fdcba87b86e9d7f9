// Plugins: the library that model.plugin names, checked and loaded.
#pragma once

#include <filesystem>
#include <string>

#include "trainer/registry.h"

namespace dtrain {

// Local. Loads the library and lets it register what it has; it stays loaded until the process ends. Throws
// Error(kUsage) when it cannot be loaded, is no plugin, or was built with anything else than `expected`.
[[nodiscard]] Registry load_plugin(const std::filesystem::path& path, const PluginBuild& expected = kThisBuild);

// What differs between the two, as "compiler 12.2.0, not 13.1.0; ...", or "".
[[nodiscard]] std::string build_differences(const PluginBuild& plugin, const PluginBuild& program);

}  // namespace dtrain
