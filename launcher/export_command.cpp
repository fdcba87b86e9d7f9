#include "launcher/export_command.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include <ATen/ops/isfinite.h>
#include <c10/core/ScalarType.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include "core/file.h"
#include "core/json.h"
#include "trainer/checkpoint/checkpoint_store.h"
#include "trainer/models/weight_files.h"

namespace dtrain {
namespace fs = std::filesystem;
namespace {

// Copied as they are, where they are there.
constexpr std::array<std::string_view, 12> kCopied = {"generation_config.json",
                                                      "tokenizer.json",
                                                      "tokenizer_config.json",
                                                      "special_tokens_map.json",
                                                      "added_tokens.json",
                                                      "vocab.json",
                                                      "merges.txt",
                                                      "vocab.txt",
                                                      "spiece.model",
                                                      "chat_template.jinja",
                                                      "README.md",
                                                      "LICENSE"};

std::optional<c10::ScalarType> type_named(const std::string& name) {
  if (name.empty()) return std::nullopt;
  if (name == "float32") return c10::ScalarType::Float;
  if (name == "float16") return c10::ScalarType::Half;
  if (name == "bfloat16") return c10::ScalarType::BFloat16;
  throw usage_error(fmt::format("export: --dtype {}: not a type of weights", name),
                    "float32, float16 or bfloat16; without --dtype they stay as they are");
}

void check_source(const fs::path& folder) {
  std::error_code code;
  if (!fs::is_directory(folder, code)) {
    throw usage_error(fmt::format("export: there is no folder {}", folder.string()),
                      "name the output_dir of a run, or one of its checkpoints");
  }
  if (!fs::exists(folder / "config.json", code)) {
    std::vector<std::int64_t> steps;
    for (const auto& entry : fs::directory_iterator(folder)) {
      if (const auto step = step_of_name(entry.path().filename().string())) steps.push_back(*step);
    }
    throw usage_error(
        fmt::format("export: {} holds no model (no config.json)", folder.string()),
        steps.empty()
            ? "name the output_dir of a run that is done, or one of its checkpoints"
            : fmt::format(
                  "the run is not done; export a checkpoint: {}",
                  (folder / fmt::format("checkpoint-{}", *std::max_element(steps.begin(), steps.end()))).string()));
  }
  if (!fs::exists(folder / "manifest.json", code)) return;
  if (const std::string damage = checkpoint_damage(folder); !damage.empty()) {
    throw data_error(fmt::format("export: the checkpoint {} is damaged: {}", folder.string(), damage),
                     "export another checkpoint");
  }
}

// The weights as they shall be, read and converted one at a time.
class Weights {
 public:
  Weights(const fs::path& folder, std::optional<c10::ScalarType> type) : files_(folder), type_(type) {}

  [[nodiscard]] const std::vector<std::string>& names() const { return files_.names(); }

  [[nodiscard]] std::uint64_t bytes(const std::string& name) const {
    const at::Tensor stored = files_.tensor(name);
    return static_cast<std::uint64_t>(stored.numel()) * c10::elementSize(type_of(stored));
  }

  [[nodiscard]] at::Tensor tensor(const std::string& name) const {
    const at::Tensor stored = files_.tensor(name);
    const at::Tensor converted = stored.to(type_of(stored));
    // float16 ends at 65504; a weight beyond would become infinite without a word.
    if (type_ == c10::ScalarType::Half && stored.is_floating_point() && !at::isfinite(converted).all().item<bool>() &&
        at::isfinite(stored).all().item<bool>()) {
      throw data_error(
          fmt::format("export: {}: tensor {:?} has values that float16 does not hold", files_.path_of(name), name),
          "export it as bfloat16 or float32");
    }
    return converted;
  }

 private:
  [[nodiscard]] c10::ScalarType type_of(const at::Tensor& stored) const {
    return type_ && stored.is_floating_point() ? *type_ : stored.scalar_type();
  }

  WeightFiles files_;
  std::optional<c10::ScalarType> type_;
};

struct Shard {
  std::vector<std::string> names;
  std::uint64_t bytes = 0;
};

// As huggingface_hub cuts: in order, a new shard before the one that no longer fits.
std::vector<Shard> cut(const Weights& weights, std::uint64_t most) {
  std::vector<Shard> shards(1);
  for (const std::string& name : weights.names()) {
    const std::uint64_t bytes = weights.bytes(name);
    if (!shards.back().names.empty() && shards.back().bytes + bytes > most) shards.emplace_back();
    shards.back().names.push_back(name);
    shards.back().bytes += bytes;
  }
  return shards;
}

// Writes model.safetensors, or shards and their index. Returns the bytes of all weights.
std::uint64_t write_weights(const Weights& weights, std::uint64_t most, const fs::path& folder) {
  const std::vector<Shard> shards = cut(weights, most);
  Json map = Json::object();
  std::uint64_t total = 0;
  for (std::size_t i = 0; i < shards.size(); ++i) {
    const std::string file = shards.size() == 1 ? "model.safetensors"
                                                : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
    NamedTensors tensors;
    for (const std::string& name : shards[i].names) {
      tensors.emplace_back(name, weights.tensor(name));
      map[name] = file;
    }
    write_safetensors(folder / file, tensors, {{"format", "pt"}});
    total += shards[i].bytes;
  }
  if (shards.size() > 1) {
    write_file_synced(folder / "model.safetensors.index.json",
                      Json{{"metadata", {{"total_size", total}}}, {"weight_map", map}}.dump(2) + "\n");
  }
  return total;
}

void write_config(const fs::path& from, const std::string& dtype, const fs::path& folder) {
  Json config = read_json_file(from / "config.json");
  if (!config.is_object()) throw data_error((from / "config.json").string() + ": not a JSON object");
  if (!dtype.empty()) {
    config.erase("torch_dtype");  // the name that transformers used before
    config["dtype"] = dtype;
  }
  write_file_synced(folder / "config.json", config.dump(2) + "\n");
}

}  // namespace

std::uint64_t size_in_bytes(const std::string& text) {
  static constexpr std::array<std::pair<std::string_view, double>, 8> kUnits = {{{"", 1},
                                                                                 {"B", 1},
                                                                                 {"KB", 1e3},
                                                                                 {"MB", 1e6},
                                                                                 {"GB", 1e9},
                                                                                 {"KIB", 1024.0},
                                                                                 {"MIB", 1048576.0},
                                                                                 {"GIB", 1073741824.0}}};
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  std::string unit(end, text.data() + text.size());
  std::erase(unit, ' ');
  std::transform(unit.begin(), unit.end(), unit.begin(), [](unsigned char c) { return std::toupper(c); });
  const auto found = std::find_if(kUnits.begin(), kUnits.end(), [&](const auto& known) { return known.first == unit; });
  if (error != std::errc() || found == kUnits.end() || !(number * found->second >= 1 && number < 1e9)) {
    throw usage_error(fmt::format("--max-shard-size {}: not a size", text), "write for example 5GB, 500MB or 2GiB");
  }
  return static_cast<std::uint64_t>(number * found->second);
}

ExitCode run_export(const Arguments& arguments) {
  const fs::path from = expand_home(arguments.folder);
  const std::uint64_t most = size_in_bytes(arguments.max_shard_size);
  const std::optional<c10::ScalarType> type = type_named(arguments.dtype);
  fs::path out = fs::absolute(expand_home(arguments.out)).lexically_normal();
  if (!out.has_filename()) out = out.parent_path();
  check_source(from);
  std::error_code code;
  if (fs::exists(fs::symlink_status(out, code)) && !(fs::is_directory(out, code) && fs::is_empty(out, code))) {
    throw usage_error(fmt::format("export: --out {}: exists already", out.string()),
                      "name a new folder: nothing is overwritten");
  }
  fs::create_directories(out.parent_path(), code);
  if (code) throw system_error(fmt::format("cannot create folder {}", out.parent_path().string()), code.value());

  const fs::path stage = out.parent_path() / fmt::format(".{}.stage-{}", out.filename().string(), ::getpid());
  std::vector<std::string> copied;
  std::uint64_t bytes = 0;
  std::size_t tensors = 0;
  try {
    fs::create_directory(stage);
    const Weights weights(from, type);
    tensors = weights.names().size();
    bytes = write_weights(weights, most, stage);
    write_config(from, arguments.dtype, stage);
    for (const std::string_view name : kCopied) {
      if (!fs::is_regular_file(from / name, code)) continue;
      write_file_synced(stage / name, read_file(from / name));
      copied.emplace_back(name);
    }
    sync_folder(stage);
    rename_synced(stage, out);
  } catch (const fs::filesystem_error& error) {
    fs::remove_all(stage, code);
    throw system_error(error.what(), error.code().value());
  } catch (const std::exception&) {
    fs::remove_all(stage, code);
    throw;
  }
  fmt::print("{} tensors, {:.1f} MB{} are in {}\nwith config.json{}{}\n", tensors, static_cast<double>(bytes) / 1e6,
             arguments.dtype.empty() ? "" : " as " + arguments.dtype, out.string(), copied.empty() ? "" : ", ",
             fmt::join(copied, ", "));
  std::fflush(stdout);
  return ExitCode::kDone;
}

}  // namespace dtrain
