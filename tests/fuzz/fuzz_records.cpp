// The JSON files of models and runs that have a reader each. The first byte of the input chooses the file.
#include "configs/sweep_settings.h"
#include "core/file.h"
#include "core/json.h"
#include "dist/hang_dump.h"
#include "launcher/sweep_record.h"
#include "tests/fuzz/fuzz.h"
#include "tests/support/files.h"
#include "trainer/checkpoint/run_json.h"
#include "trainer/checkpoint/trainer_state.h"
#include "trainer/models/model_config.h"
#include "trainer/models/weight_files.h"
#include "trainer/report/run_files.h"

namespace dtrain {
namespace {

namespace fs = std::filesystem;
using fuzz::require;

// What is read is written again, and read once more to the same.
void check_trainer_state(const fs::path& folder, std::string_view text) {
  test::write_file(folder / "trainer_state.json", text);
  const std::string written = trainer_state_json(read_trainer_state(folder / "trainer_state.json"));
  test::write_file(folder / "again.json", written);
  require(trainer_state_json(read_trainer_state(folder / "again.json")) == written, "the state changes", written);
}

void check_run_record(const fs::path& folder, std::string_view text) {
  test::write_file(folder / "run.json", text);
  const std::optional<RunRecord> record = read_run_record(folder);
  require(record.has_value(), "no record");
  write_run_record(folder, *record);
  const std::optional<RunRecord> again = read_run_record(folder);
  require(again && again->step == record->step && again->state == record->state && again->exit == record->exit &&
              again->suspects == record->suspects && again->checkpoint == record->checkpoint,
          "the record changes", text);
}

void check_weight_index(const fs::path& folder, std::string_view text) {
  // One tensor "w" of two bytes.
  const std::string header = R"({"w":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})";
  std::string shard(8, '\0');
  shard[0] = static_cast<char>(header.size());
  test::write_file(folder / "a.safetensors", shard + header + "xy");
  test::write_file(folder / "model.safetensors.index.json", text);
  const WeightFiles files(folder);
  for (const std::string& name : files.names()) {
    require(name == "w" && files.tensor(name).numel() == 2, "a tensor that no file has", name);
    require(files.path_of(name) == folder / "a.safetensors", "another file", files.path_of(name));
  }
}

void check_model_config(std::string_view text) {
  const fs::path path = "config.json";
  const Json json = parse_json(text, path.string());
  const ModelOptions options;
  fuzz::accepts([&] { static_cast<void>(read_model_type(json, path)); });
  if (!json.is_object()) return;  // read_model_type() comes first
  fuzz::accepts([&] {
    const EncoderConfig config = read_encoder_config(json, path, options);
    require(config.hidden_size % config.num_heads == 0 && config.vocab_size > 0, "sizes");
  });
  fuzz::accepts([&] {
    const Gpt2Config config = read_gpt2_config(json, path, options);
    require(config.hidden_size % config.num_heads == 0 && config.vocab_size > 0, "sizes");
  });
  fuzz::accepts([&] { require(read_bart_config(json, path, options).vocab_size > 0, "sizes"); });
  const HeadConfig head = read_head_config(json, path, options);
  require(head.num_labels >= 1, "no labels");
  const Json written = model_json(head, "BertForSequenceClassification", 0);
  const HeadConfig again = read_head_config(written, path, options);
  require(again.num_labels == head.num_labels && again.problem_type == head.problem_type, "the head changes",
          written.dump(-1, ' ', true, Json::error_handler_t::replace));
}

void check_hang_dump(std::string_view text) {
  const RankDump dump = parse_dump(text, "rank_0.json");
  require(dump.rank >= 0 && static_cast<std::size_t>(dump.rank) < dump.hosts.size(), "the rank");
}

void check_log(std::string_view text) {
  const RunLog log = parse_run_log(text, "log.jsonl");
  for (const Series& series : log.training) {
    require(series.steps.size() == series.values.size() && std::is_sorted(series.steps.begin(), series.steps.end()),
            "a series", series.name);
  }
}

void check_sweep_record(const fs::path& folder, std::string_view text) {
  static const SweepSettings sweep = [] {
    SweepSettings settings;
    settings.metric = "eval_loss";
    settings.space.push_back({.name = "training.seed", .values = {1, 2}});
    settings.space.push_back({.name = "training.learning_rate",
                              .kind = SweepParameter::Kind::kFloat,
                              .low = 1e-5,
                              .high = 1e-3,
                              .log = true});
    return settings;
  }();
  test::write_file(folder / "sweep.json", text);
  const SweepRecord record = read_sweep_record(folder / "sweep.json", sweep);
  static_cast<void>(to_csv(record, sweep));
  static_cast<void>(to_table(record, sweep));
  test::write_file(folder / "again.json", to_json(record, sweep).dump(2));
  require(read_sweep_record(folder / "again.json", sweep).trials.size() == record.trials.size(), "the record changes");
}

void check(fuzz::Input input) {
  const fs::path& folder = fuzz::fresh_folder();
  const std::uint8_t which = input.byte();
  fuzz::accepts([&] {
    switch (which % 8) {
      case 0:
        return check_trainer_state(folder, input.rest());
      case 1:
        return check_run_record(folder, input.rest());
      case 2:
        return check_weight_index(folder, input.rest());
      case 3:
        return check_model_config(input.rest());
      case 4:
        return check_hang_dump(input.rest());
      case 5:
        return check_log(input.rest());
      case 6:
        return check_sweep_record(folder, input.rest());
      default:
        // What else reads JSON starts like this, and may copy and write what it gets.
        static_cast<void>(OrderedJson(parse_json(input.rest(), "x.json")).dump());
    }
  });
}

}  // namespace
}  // namespace dtrain

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  dtrain::check({data, size});
  return 0;
}
