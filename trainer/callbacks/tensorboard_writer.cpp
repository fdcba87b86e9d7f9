#include "trainer/callbacks/tensorboard_writer.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <ctime>
#include <limits>
#include <system_error>

#include <fmt/chrono.h>
#include <unistd.h>

#include "core/error.h"
#include "core/log.h"
#include "trainer/callbacks/tensorboard_events.h"

namespace dtrain {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kFilePrefix = "events.out.tfevents.";

double wall_time() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::string host_name() {
  char host[256] = "localhost";
  ::gethostname(host, sizeof host - 1);
  return host;
}

// "Nov25_14-03-59_node1", as torch.utils.tensorboard names the folder of a run.
std::string folder_name() {
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  ::localtime_r(&now, &local);
  return fmt::format("{:%b%d_%H-%M-%S}_{}", local, host_name());
}

struct NewestFile {
  fs::path folder;
  std::int64_t seconds = 0;  // the time in its name
};

// The event file begun last in `folder`, or in the folders in it. A folder that cannot be read has none.
NewestFile newest_file(const fs::path& folder, int depth) {
  constexpr std::int64_t kNoTime = 100'000'000'000;  // past the year 5000
  NewestFile newest;
  std::error_code code;
  fs::recursive_directory_iterator entry(folder, code);
  for (; !code && entry != fs::recursive_directory_iterator(); entry.increment(code)) {
    if (entry.depth() >= depth) entry.disable_recursion_pending();
    const std::string name = entry->path().filename().string();
    if (entry.depth() != depth || !name.starts_with(kFilePrefix)) continue;
    std::int64_t seconds = 0;
    std::from_chars(name.data() + kFilePrefix.size(), name.data() + name.size(), seconds);
    if (seconds > newest.seconds && seconds < kNoTime) newest = {entry->path().parent_path(), seconds};
  }
  return newest;
}

// Markdown that shows `text` as it is.
std::string code_block(std::string_view language, const std::string& text) {
  return fmt::format("```{}\n{}{}```\n", language, text, text.ends_with('\n') ? "" : "\n");
}

}  // namespace

std::string tensorboard_tag(std::string_view key) {
  for (const std::string_view split : {"eval", "test"}) {
    if (key.starts_with(split) && key.substr(split.size()).starts_with('_')) {
      return fmt::format("{}/{}", split, key.substr(split.size() + 1));
    }
  }
  return fmt::format("train/{}", key);
}

void TensorboardWriter::on_train_begin(const TrainerState& state, TrainerControl&) {
  if (state.is_world_process_zero && !file_) begin_file(state.global_step);
}

void TensorboardWriter::on_log(const TrainerState& state, TrainerControl&, const OrderedJson& record) {
  if (!state.is_world_process_zero || given_up_) return;
  if (!file_) begin_file(state.global_step);  // evaluation without training
  const double now = wall_time();
  std::string events;
  for (const auto& [key, value] : record.items()) {
    if (key == "step") continue;
    const std::string tag = tensorboard_tag(key);
    if (value.is_string()) {
      events += tf_record(text_event(now, state.global_step, tag, value.get_ref<const std::string&>()));
    } else if (value.is_number() || value.is_boolean() || value.is_null()) {
      double number = std::numeric_limits<double>::quiet_NaN();
      if (value.is_boolean()) number = value.get<bool>() ? 1 : 0;
      if (value.is_number()) number = value.get<double>();
      events += tf_record(scalar_event(now, state.global_step, tag, number));
    }
  }
  write(events);
}

void TensorboardWriter::on_train_end(const TrainerState&, TrainerControl&) { file_.reset(); }

void TensorboardWriter::begin_file(std::int64_t step) {
  try {
    // TensorBoard reads the files of a folder in the order of their names: a file that goes on has the later time, even
    // when this machine's clock is behind.
    const NewestFile newest = options_.folder.empty() ? newest_file(options_.runs, 1) : newest_file(options_.folder, 0);
    const std::int64_t seconds = std::max<std::int64_t>(std::time(nullptr), newest.seconds + 1);
    const bool goes_on = step > 0 && !newest.folder.empty();
    fs::path folder = options_.folder;
    if (folder.empty()) folder = goes_on ? newest.folder : options_.runs / folder_name();
    std::error_code code;
    fs::create_directories(folder, code);
    if (code) throw system_error(fmt::format("cannot create {}", folder.string()), code.value());
    file_ = std::make_unique<OutputFile>(
        folder / fmt::format("{}{:010}.{}.{}.0", kFilePrefix, seconds, host_name(), ::getpid()),
        OutputFile::Mode::kExclusive);
  } catch (const Error& error) {
    return give_up(error.what());
  }
  const double now = wall_time();
  std::string events = tf_record(version_event(now));
  if (step > 0) events += tf_record(restart_event(now, step + 1));
  events += tf_record(text_event(now, step, "args", code_block("toml", options_.settings)));
  if (!options_.model_config.empty()) {
    events += tf_record(text_event(now, step, "model_config", code_block("json", options_.model_config)));
  }
  write(events);
}

void TensorboardWriter::write(std::string_view events) {
  if (!file_) return;
  try {
    file_->write(events);
  } catch (const Error& error) {
    give_up(error.what());
  }
}

// A record may be half written: nothing after it in this file could be read.
void TensorboardWriter::give_up(const std::string& reason) {
  log::warning("{}; training goes on without TensorBoard files", reason);
  file_.reset();
  given_up_ = true;
}

}  // namespace dtrain
