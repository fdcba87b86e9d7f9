// Where a pretrained model or tokenizer lies: a folder of the user's, or a repository in the local Hugging Face cache.
#pragma once

#include <filesystem>
#include <string_view>

namespace dtrain {

// `name` is an existing folder, or "org/model" / "model" whose files the `hf` command has put into the cache
// ($HF_HUB_CACHE, else $HF_HOME/hub, else ~/.cache/huggingface/hub; the layout of huggingface_hub: refs/main names the
// snapshot). Throws Error(kUsage) that says which command fetches it; nothing is downloaded here.
[[nodiscard]] std::filesystem::path pretrained_folder(std::string_view name);

}  // namespace dtrain
