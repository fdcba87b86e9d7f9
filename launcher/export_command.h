// dtrain export FOLDER --out NEW: a trained model as a folder for the Hub, without what only training needs.
#pragma once

#include <cstdint>
#include <string>

#include "core/error.h"
#include "launcher/arguments.h"

namespace dtrain {

// Local. Reads a run's output_dir, a checkpoint or any folder with config.json and safetensors; writes aside and
// renames, so that the new folder is complete or absent. Throws Error(kUsage) when it already exists.
ExitCode run_export(const Arguments& arguments);

// "5GB", "200 MB", "1GiB" or a number of bytes. Throws Error(kUsage).
[[nodiscard]] std::uint64_t size_in_bytes(const std::string& text);

}  // namespace dtrain
