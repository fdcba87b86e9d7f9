// Where a pretrained model, a tokenizer or a data set lies: a folder of the user's, or a repository in the local
// Hugging Face cache ($HF_HUB_CACHE, else $HF_HOME/hub, else ~/.cache/huggingface/hub; the layout of huggingface_hub,
// in which refs/main names the snapshot). Nothing is downloaded here.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

namespace dtrain {

// Whether the Hub allows it as the name of a repository, "user/name" or "name" (huggingface_hub's validate_repo_id):
// letters, digits, '-', '_' and '.', neither '-' nor '.' at an end, no "--" or "..", at most 96 characters, not
// "*.git".
[[nodiscard]] bool is_repository_name(std::string_view name);

// `name` is an existing folder, or "org/model" / "model" whose files the `hf` command has put into the cache. Throws
// Error(kUsage) that says which command fetches it.
[[nodiscard]] std::filesystem::path pretrained_folder(std::string_view name);

// What "hf://datasets/user/name/data/train-*.parquet" stands for.
struct HubDatasetPath {
  std::filesystem::path folder;  // the snapshot of user/name in the cache
  std::string file;              // "data/train-*.parquet": whatever follows the name
  std::string fetch_command;
};

// None when `path` does not begin with "hf://". Throws Error(kUsage) when the rest is not of that form, or when the
// data set is not in the cache (the hint is the command that fetches it); whether the file is there is not looked at.
[[nodiscard]] std::optional<HubDatasetPath> hub_dataset_path(std::string_view path);

}  // namespace dtrain
