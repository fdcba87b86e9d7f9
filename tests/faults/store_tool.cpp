// A program around CheckpointStore that starts in milliseconds, for the tests that kill it or make its system calls
// fail.
//
//   store_tool save FOLDER STEP BYTES BEST LIMIT   publishes, then prunes; prints one line of JSON
//   store_tool check                               reads names of folders, prints what latest() and list() say of each
//   store_tool recover STEP BYTES BEST LIMIT       the same, then goes on as the next run does: leftovers, a save
//   store_tool flip CHECKPOINT                     reads lines "FILE BYTE BIT": flips it, prints the damage, flips back
//   store_tool cut CHECKPOINT                      reads lines "FILE LENGTH": cuts it to that, prints the damage
//   store_tool read FOLDER                         asks for latest() again and again until FOLDER/stop is there
//   store_tool rotate LIMIT                        reads names of folders to make: eight saves with the best at each
//   place
//
// BEST 0: none. The estimate of what a save needs is too low by half. What happens between the two calls of
// access("/marker") is what the tests look at. Exit codes are those of dtrain.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

#include "core/error.h"
#include "core/file.h"
#include "core/json.h"
#include "core/log.h"
#include "trainer/checkpoint/checkpoint_store.h"

namespace {

namespace fs = std::filesystem;
using dtrain::CheckpointStore;
using dtrain::Json;

struct Save {
  std::int64_t step = 0;
  std::size_t bytes = 0;
  std::int64_t best = 0;
  std::int64_t limit = 0;
};

std::optional<std::int64_t> best_of(const Save& save) {
  return save.best > 0 ? std::optional(save.best) : std::nullopt;
}

// Messages quote damaged files, byte for byte.
std::string line_of(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

int open_files() {
  int count = 0;
  for (int fd = 0; fd < 256; ++fd) count += ::fcntl(fd, F_GETFD) >= 0 ? 1 : 0;
  return count;
}

void publish_and_prune(const CheckpointStore& store, const Save& save) {
  store.publish({.step = save.step, .bytes = save.bytes / 2, .write = [&](const fs::path& stage) {
                   std::string weights(save.bytes, '\0');
                   std::uint64_t state = static_cast<std::uint64_t>(save.step);
                   for (char& byte : weights) {
                     state = state * 6364136223846793005ULL + 1442695040888963407ULL;
                     byte = static_cast<char>(state >> 56);
                   }
                   dtrain::write_file_synced(stage / "model.safetensors", weights);
                   dtrain::write_file_synced(stage / "config.json", std::to_string(save.step));
                 }});
  store.prune(best_of(save), save.limit);
}

// Runs `work`; {"code", "error"} of how it ended.
Json outcome_of(const std::function<void()>& work) {
  try {
    work();
  } catch (const dtrain::Error& error) {
    return {{"code", static_cast<int>(error.code())}, {"error", error.what()}};
  } catch (const fs::filesystem_error& error) {
    return {{"code", 74}, {"error", error.what()}};
  }
  return {{"code", 0}, {"error", ""}};
}

Json report_of(const fs::path& folder) {
  Json report = {{"latest", nullptr}, {"steps", Json::array()}, {"damaged", Json::object()}, {"left", Json::array()}};
  const CheckpointStore store(folder);
  report["error"] = outcome_of([&] {
    if (const auto latest = store.latest()) report["latest"] = latest->step;
  })["error"];
  for (const dtrain::Checkpoint& checkpoint : store.list()) {
    report["steps"].push_back(checkpoint.step);
    const std::string damage = dtrain::checkpoint_damage(checkpoint.folder);
    if (!damage.empty()) report["damaged"][std::to_string(checkpoint.step)] = damage;
  }
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with('.')) report["left"].push_back(name);
  }
  return report;
}

// Of one file of a checkpoint, without reading the others.
std::string damage_of(const fs::path& checkpoint, const std::string& name) {
  if (name == "manifest.json") return dtrain::checkpoint_damage(checkpoint);
  const Json files = dtrain::read_manifest(checkpoint).at("files");
  const std::string damage = dtrain::file_damage(checkpoint / name, files.at(name));
  return damage.empty() ? damage : name + ": " + damage;
}

void flip_bit(const fs::path& path, std::int64_t byte, int bit) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(byte);
  const int value = file.get();
  file.seekp(byte);
  file.put(static_cast<char>(value ^ (1 << bit)));
}

// Eight saves, the best so far being the one at `best` (0: none): best and last must be there after each, and no more
// than allowed.
bool rotates_well(const fs::path& folder, std::int64_t best, std::size_t limit) {
  const CheckpointStore store(folder);
  for (std::int64_t step = 1; step <= 8; ++step) {
    const Save save = {step, 100, best > 0 && best <= step ? best : 0, static_cast<std::int64_t>(limit)};
    publish_and_prune(store, save);
    std::vector<std::int64_t> steps;
    for (const dtrain::Checkpoint& checkpoint : store.list()) steps.push_back(checkpoint.step);
    const bool two = save.best > 0 && save.best != step;
    const std::size_t most = std::min(static_cast<std::size_t>(step), std::max<std::size_t>(limit, two ? 2 : 1));
    if (steps.size() != most || steps.back() != step || store.latest()->step != step) return false;
    if (save.best > 0 && std::count(steps.begin(), steps.end(), save.best) != 1) return false;
  }
  return true;
}

void for_each_line(const std::function<void(const std::string&)>& function) {
  std::string line;
  while (std::getline(std::cin, line)) function(line);
}

Save save_of(const std::vector<std::string>& words) {
  return {std::stoll(words.at(0)), std::stoull(words.at(1)), std::stoll(words.at(2)), std::stoll(words.at(3))};
}

int run(const std::vector<std::string>& words) {
  const std::string& command = words.at(0);
  if (command == "save") {
    const CheckpointStore store(words.at(1));
    const Save save = save_of({words.begin() + 2, words.end()});
    const int before = open_files();
    (void)::access("/marker", F_OK);
    Json outcome = outcome_of([&] { publish_and_prune(store, save); });
    (void)::access("/marker", F_OK);
    outcome["fds"] = open_files() - before;
    std::cout << line_of(outcome) << std::endl;
    return outcome["code"];
  }
  if (command == "check") {
    for_each_line([](const std::string& folder) { std::cout << line_of(report_of(folder)) << "\n"; });
    return 0;
  }
  if (command == "recover") {
    const Save save = save_of({words.begin() + 1, words.end()});
    for_each_line([&](const std::string& folder) {
      Json reports = {report_of(folder)};
      const CheckpointStore store(folder);
      const Json outcome = outcome_of([&] {
        store.remove_leftovers();
        publish_and_prune(store, save);
      });
      reports.push_back(report_of(folder));
      reports.back()["outcome"] = outcome;
      std::cout << line_of(reports) << "\n";
    });
    return 0;
  }
  if (command == "flip" || command == "cut") {
    const fs::path checkpoint = words.at(1);
    for_each_line([&](const std::string& line) {
      std::istringstream in(line);
      std::string name;
      std::int64_t place = 0;
      int bit = 0;
      in >> name >> place >> bit;
      if (command == "cut") fs::resize_file(checkpoint / name, static_cast<std::uintmax_t>(place));
      if (command == "flip") flip_bit(checkpoint / name, place, bit);
      std::cout << damage_of(checkpoint, name) << "\n";
      if (command == "flip") flip_bit(checkpoint / name, place, bit);
    });
    return 0;
  }
  if (command == "read") {
    const fs::path folder = words.at(1);
    const CheckpointStore store(folder);
    std::int64_t reads = 0;
    std::int64_t step = 0;
    const Json outcome = outcome_of([&] {
      for (; !fs::exists(folder / "stop"); ++reads) {
        const auto latest = store.latest();
        if (latest) step = latest->step;
      }
    });
    std::cout << line_of({{"reads", reads}, {"step", step}, {"outcome", outcome}}) << "\n";
    return outcome["code"];
  }
  if (command == "rotate") {
    for_each_line([&](const std::string& folder) {
      int wrong = 0;
      for (std::int64_t best = 0; best <= 8; ++best) {
        wrong += rotates_well(folder, best, std::stoull(words.at(1))) ? 0 : 1;
        fs::remove_all(folder);
      }
      std::cout << Json{{"sequences", 9}, {"wrong", wrong}}.dump() << "\n";
    });
    return 0;
  }
  throw dtrain::usage_error("no command " + command);
}

}  // namespace

int main(int argc, char** argv) {
  dtrain::log::set_up(0, 1, dtrain::log::Level::kWarning, dtrain::log::Level::kWarning);
  return run(std::vector<std::string>(argv + 1, argv + argc));
}
