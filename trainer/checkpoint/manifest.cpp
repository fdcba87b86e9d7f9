#include "trainer/checkpoint/manifest.h"

#include <algorithm>
#include <cerrno>
#include <limits>
#include <system_error>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

#include "core/digest.h"
#include "core/error.h"
#include "core/file.h"
#include "trainer/checkpoint/checkpoint_store.h"

namespace dtrain {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kFormat = "dtrain checkpoint";
constexpr std::uint64_t kVersion = 1;

void sync_file(const fs::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) throw system_error(fmt::format("cannot open {}", path.string()), errno);
  int result = 0;
  do {
    result = ::fsync(fd);
  } while (result != 0 && errno == EINTR);
  const int error = errno;
  ::close(fd);
  if (result != 0) throw system_error(fmt::format("cannot sync {}", path.string()), error);
}

// A relative path that leads nowhere but down.
bool is_inside(const fs::path& name) {
  return !name.empty() && name.is_relative() &&
         std::none_of(name.begin(), name.end(), [](const fs::path& part) { return part == ".." || part.empty(); });
}

Json parse_manifest(const fs::path& folder) {
  const fs::path path = folder / kManifestName;
  const std::string text = read_file(path);
  const Json manifest = parse_json(text, path.string());
  const auto fail = [&](const std::string& what) {
    return data_error(fmt::format("{}: {}", path.string(), what), "the checkpoint is damaged; use another one");
  };
  if (!manifest.is_object() || manifest.value("format", Json()) != kFormat) {
    throw fail(fmt::format("\"format\" is not \"{}\"", kFormat));
  }
  const Json version = manifest.value("version", Json());
  if (!version.is_number_unsigned()) throw fail("\"version\" is not a number");
  if (version.get<std::uint64_t>() > kVersion) {
    throw data_error(
        fmt::format("{}: format version {}, this dtrain reads up to {}", path.string(), version.dump(), kVersion),
        "use a newer dtrain");
  }
  if (manifest_text(manifest) != text) throw fail("digest differs");
  const Json step = manifest.value("step", Json());
  const Json files = manifest.value("files", Json());
  constexpr std::uint64_t kLastStep = std::numeric_limits<std::int64_t>::max();
  if (!step.is_number_unsigned() || step.get<std::uint64_t>() > kLastStep || !files.is_object())
    throw fail("\"step\" or \"files\" is missing");
  if (!manifest.value("config_digest", Json()).is_string() || !manifest.value("facts", Json()).is_object())
    throw fail("\"config_digest\" or \"facts\" is missing");
  for (const auto& [name, entry] : files.items()) {
    if (!entry.is_object() || !entry.value("bytes", Json()).is_number_unsigned() ||
        !entry.value("xxh3_128", Json()).is_string()) {
      throw fail(fmt::format("entry of \"{}\" is not {{bytes, xxh3_128}}", name));
    }
    if (!is_inside(name)) throw fail(fmt::format("\"{}\" is not the name of a file in the checkpoint", name));
  }
  return manifest;
}

std::string damage_of_files(const fs::path& folder, const Json& manifest) {
  for (const auto& [name, entry] : manifest.at("files").items()) {
    if (const std::string damage = file_damage(folder / name, entry); !damage.empty()) return name + ": " + damage;
  }
  const auto step = step_of_name(folder.filename().string());
  const auto manifest_step = manifest.at("step").get<std::int64_t>();
  if (step && *step != manifest_step) return fmt::format("{}: is of step {}", kManifestName, manifest_step);
  return {};
}

}  // namespace

Json sync_and_list(const fs::path& stage) {
  Json files = Json::object();
  std::vector<fs::path> folders = {stage};
  std::error_code code;
  for (fs::recursive_directory_iterator entry(stage, code), end; !code && entry != end; entry.increment(code)) {
    if (entry->is_symlink() || !(entry->is_regular_file() || entry->is_directory())) {
      throw io_error(fmt::format("{} is neither a file nor a folder", entry->path().string()),
                     "a checkpoint holds files and folders only");
    }
    if (entry->is_directory()) {
      folders.push_back(entry->path());
      continue;
    }
    sync_file(entry->path());
    files[entry->path().lexically_relative(stage).generic_string()] = {
        {"bytes", static_cast<std::uint64_t>(entry->file_size())}, {"xxh3_128", digest_of_file(entry->path())}};
  }
  if (code) throw system_error(fmt::format("cannot list {}", stage.string()), code.value());
  for (auto folder = folders.rbegin(); folder != folders.rend(); ++folder) sync_folder(*folder);
  return files;
}

std::string manifest_text(Json content) {
  content["format"] = kFormat;
  content["version"] = kVersion;
  content.erase("digest");
  content["digest"] = digest_of(content.dump());
  return content.dump(2) + "\n";
}

std::string file_damage(const fs::path& path, const Json& entry) {
  std::error_code code;
  if (!fs::is_regular_file(path, code)) return "missing";
  const auto expected = entry.at("bytes").get<std::uint64_t>();
  const auto size = static_cast<std::uint64_t>(fs::file_size(path, code));
  if (code) return code.message();
  if (size != expected) return fmt::format("{} bytes instead of {}", size, expected);
  if (digest_of_file(path) != entry.at("xxh3_128").get<std::string>()) {
    return "digest differs (content changed since it was written)";
  }
  return {};
}

std::string checkpoint_damage(const fs::path& folder) {
  std::error_code code;
  if (!fs::is_directory(folder, code)) return "no such folder";
  if (!fs::is_regular_file(folder / kManifestName, code)) return fmt::format("{}: missing", kManifestName);
  try {
    return damage_of_files(folder, parse_manifest(folder));
  } catch (const Error& error) {
    return error.what();
  }
}

Json read_manifest(const fs::path& folder) {
  std::error_code code;
  if (!fs::is_regular_file(folder / kManifestName, code)) {
    throw data_error(fmt::format("{} is not a checkpoint of dtrain: it has no {}", folder.string(), kManifestName),
                     "name a folder checkpoint-<step> that dtrain wrote");
  }
  return parse_manifest(folder);
}

}  // namespace dtrain
