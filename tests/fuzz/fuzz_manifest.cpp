// The manifest of a checkpoint. The input is the file as it is; when it is a JSON object, it is also tried with a
// digest of its own put right, so that what lies behind the digest is reached.
#include <algorithm>

#include "core/digest.h"
#include "core/file.h"
#include "core/json.h"
#include "tests/fuzz/fuzz.h"
#include "tests/support/files.h"
#include "trainer/checkpoint/checkpoint_store.h"
#include "trainer/checkpoint/manifest.h"

namespace dtrain {
namespace {

namespace fs = std::filesystem;
using fuzz::require;

// What is accepted is what manifest_text() writes, and names files of the checkpoint only.
void check_folder(const fs::path& folder) {
  const std::string damage = checkpoint_damage(folder);
  const bool read = fuzz::accepts([&] {
    const Json manifest = read_manifest(folder);
    require(manifest_text(manifest) == read_file(folder / kManifestName), "another text is accepted");
    require(manifest.at("step").get<std::int64_t>() >= 0, "a step below 0");
    for (const auto& [name, entry] : manifest.at("files").items()) {
      const std::string path = (folder / name).lexically_normal().string();
      require(path.starts_with(folder.string() + "/"), "a file outside of the checkpoint", name);
      const std::string reason = file_damage(folder / name, entry);
      require(damage.empty() ? reason.empty() : true, "a damaged file goes unnoticed", name);
    }
    static_cast<void>(manifest.value("facts", Json::object()).value("world_size", Json()));
  });
  require(read || !damage.empty(), "a manifest that cannot be read is no damage");
  // The newest intact checkpoint of the folder is this one, or there is none.
  const bool found = fuzz::accepts([&] {
    const auto latest = CheckpointStore(folder.parent_path()).latest();
    require(latest && latest->folder == folder, "another checkpoint");
  });
  require(found == damage.empty(), "latest() and checkpoint_damage() differ", damage);
}

void check(std::string_view input) {
  const fs::path folder = fuzz::fresh_folder() / "checkpoint-5";
  fs::create_directories(folder / "extra");
  test::write_file(folder / "model.safetensors", "weights");
  test::write_file(folder / "extra" / "empty", "");
  require(!fuzz::accepts([&] { static_cast<void>(read_manifest(folder)); }), "a manifest out of nothing");
  test::write_file(folder / kManifestName, input);
  check_folder(folder);
  fuzz::accepts([&] {
    const Json content = parse_json(input, "input");
    if (!content.is_object()) return;
    test::write_file(folder / kManifestName, manifest_text(content));
    check_folder(folder);
    // The same about the files that are there.
    fs::remove(folder / kManifestName);
    Json whole = {{"step", 5}, {"config_digest", "x"}, {"facts", content}, {"files", sync_and_list(folder)}};
    test::write_file(folder / kManifestName, manifest_text(std::move(whole)));
    require(checkpoint_damage(folder).empty(), "what was listed is damaged", checkpoint_damage(folder));
    check_folder(folder);
  });
}

}  // namespace
}  // namespace dtrain

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  dtrain::check({reinterpret_cast<const char*>(data), size});
  return 0;
}
