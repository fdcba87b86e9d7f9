// The events of the loop against those of the Trainer (tests/golden/record_events.py), and what a step does when memory
// is short or a loss is no number.
#include <cmath>
#include <limits>
#include <new>
#include <stdexcept>
#include <system_error>

#include <ATen/ops/equal.h>
#include <c10/util/Exception.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "configs/setting.h"
#include "core/error.h"
#include "core/json.h"
#include "dist/failure.h"
#include "dist/out_of_memory.h"
#include "tests/support/files.h"
#include "tests/support/temp_folder.h"
#include "tests/unit/trainer/loop_support.h"
#include "trainer/loop_totals.h"

namespace dtrain::test {
namespace {

using testing::HasSubstr;

class Recorder final : public Callback {
 public:
  void on_init_end(const TrainerState& state, TrainerControl&) override { add("on_init_end", state); }
  void on_train_begin(const TrainerState& state, TrainerControl&) override { add("on_train_begin", state); }
  void on_train_end(const TrainerState& state, TrainerControl&) override { add("on_train_end", state); }
  void on_epoch_begin(const TrainerState& state, TrainerControl&) override { add("on_epoch_begin", state); }
  void on_epoch_end(const TrainerState& state, TrainerControl&) override { add("on_epoch_end", state); }
  void on_step_begin(const TrainerState& state, TrainerControl&) override { add("on_step_begin", state); }
  void on_substep_end(const TrainerState& state, TrainerControl&) override { add("on_substep_end", state); }
  void on_pre_optimizer_step(const TrainerState& state, TrainerControl&) override {
    add("on_pre_optimizer_step", state);
  }
  void on_optimizer_step(const TrainerState& state, TrainerControl&) override { add("on_optimizer_step", state); }
  void on_step_end(const TrainerState& state, TrainerControl&, const StepReport&) override {
    add("on_step_end", state);
  }
  void on_log(const TrainerState& state, TrainerControl&, const OrderedJson&) override { add("on_log", state); }
  void on_prediction_step(const TrainerState& state, TrainerControl&, std::int64_t, std::int64_t) override {
    add("on_prediction_step", state);
  }
  void on_evaluate(const TrainerState& state, TrainerControl&, const OrderedJson&) override {
    add("on_evaluate", state);
  }
  void on_predict(const TrainerState& state, TrainerControl&, const OrderedJson& metrics) override {
    EXPECT_TRUE(metrics.contains("test_runtime"));
    add("on_predict", state);
  }
  void on_save(const TrainerState& state, TrainerControl&, const std::filesystem::path&) override {
    add("on_save", state);
  }
  void on_push_begin(const TrainerState& state, TrainerControl&) override { add("on_push_begin", state); }

  [[nodiscard]] const std::vector<std::string>& events() const { return events_; }

 private:
  void add(const char* event, const TrainerState& state) {
    events_.push_back(fmt::format("{} {}", event, state.global_step));
  }
  std::vector<std::string> events_;
};

TEST(Events, AreFiredInTheTrainersOrder) {
  const Json golden = read_json_file(test_data("golden/events.json"));
  EXPECT_EQ(golden.at("events").size(), 16U);
  const auto eval_examples = golden.at("examples")[1].get<std::int64_t>();
  for (const Json& scenario : golden.at("scenarios")) {
    const TempFolder folder;
    TrainConfig config = tiny_config(folder.path());
    config.training.per_device_train_batch_size = 4;
    config.training.logging_steps = 500;
    config.training.save_strategy = "steps";
    config.reliability.save_in_background = false;  // else on_save comes when the checkpoint is there
    for (const auto& [key, value] : scenario.at("options").items()) {
      const Setting* setting = find_setting("training", key);
      ASSERT_NE(setting, nullptr) << key;
      setting->set(config, checked_value(*setting, value, "golden"));
    }
    const auto recorder = std::make_shared<Recorder>();
    (void)train_tiny(config, {.examples = golden.at("examples")[0].get<std::int64_t>(),
                              .eval_examples = config.training.eval_strategy == "no" ? 0 : eval_examples,
                              .watcher = recorder,
                              .afterwards = [&](Trainer& trainer) {
                                (void)trainer.predict(std::make_shared<TinyDataset>(eval_examples, 3));
                              }});
    EXPECT_EQ(recorder->events(), scenario.at("events").get<std::vector<std::string>>()) << scenario.at("options");
  }
}

TEST(Events, APushOfACheckpointIsAnnounced) {
  for (const bool at_the_end : {false, true}) {
    const TempFolder folder;
    TrainConfig config = tiny_config(folder.path());
    config.training.max_steps = 2;
    config.training.save_strategy = "steps";
    config.training.save_steps = 1;
    config.training.push_to_hub = true;
    config.training.hub_model_id = "someone/tiny";
    config.training.hub_strategy = at_the_end ? "end" : "every_save";
    const auto recorder = std::make_shared<Recorder>();
    (void)train_tiny(config, {.watcher = recorder});
    std::vector<std::string> events = recorder->events();
    std::erase_if(events, [](const std::string& event) {
      return !event.starts_with("on_save") && !event.starts_with("on_push_begin");
    });
    // With nothing to upload the first is written behind the second step.
    EXPECT_EQ(events, at_the_end
                          ? (std::vector<std::string>{"on_save 2", "on_save 2"})
                          : (std::vector<std::string>{"on_push_begin 1", "on_save 1", "on_push_begin 2", "on_save 2"}));
  }
}

TEST(OutOfMemory, IsToldFromOtherFailures) {
  const auto torch_error = [](const char* text) { return c10::Error({}, std::string(text)); };
  EXPECT_TRUE(is_out_of_memory(std::bad_alloc()));
  EXPECT_TRUE(is_out_of_memory(torch_error("CUDA out of memory. Tried to allocate 2.00 GiB.")));
  EXPECT_TRUE(is_out_of_memory(torch_error("DefaultCPUAllocator: can't allocate memory: you tried")));
  EXPECT_FALSE(is_out_of_memory(torch_error("mat1 and mat2 shapes cannot be multiplied")));
  EXPECT_FALSE(is_out_of_memory(std::runtime_error("out of luck")));
  const std::system_error no_thread(std::make_error_code(std::errc::resource_unavailable_try_again));
  EXPECT_TRUE(is_out_of_memory(no_thread));
  EXPECT_THAT(as_error(no_thread).what(), testing::HasSubstr("no memory for another thread"));
  EXPECT_FALSE(is_out_of_memory(std::system_error(std::make_error_code(std::errc::no_space_on_device))));
}

// One rank runs short in its second micro-batch of step 2, while the others wait for its gradients.
TEST(OutOfMemory, OfOneRankIsThrownByAllRanks) {
  const TempFolder folder;
  TrainConfig config = tiny_config(folder.path());
  config.training.per_device_train_batch_size = 2;
  config.training.gradient_accumulation_steps = 2;
  config.training.auto_find_batch_size = true;
  for (const int victim : {0, 1, 2}) {
    std::int64_t forwards = 0;
    try {
      (void)train_tiny(config, {.world_size = 3, .during_forward = [&](int rank) {
                                  if (rank == victim && ++forwards == 4) throw std::bad_alloc();
                                }});
      FAIL() << "nothing was thrown";
    } catch (const OutOfMemory& error) {
      EXPECT_EQ(std::string(error.what()), fmt::format("step 2: out of memory on rank {}", victim));
      EXPECT_EQ(error.code(), ExitCode::kInternal);
      EXPECT_THAT(error.hint(), HasSubstr("lower per_device_train_batch_size"));
    }
  }
}

TEST(OutOfMemory, LeavesAsItCameWithoutTheSetting) {
  const TempFolder folder;
  EXPECT_THROW((void)train_tiny(tiny_config(folder.path()), {.during_forward = [](int) { throw std::bad_alloc(); }}),
               std::bad_alloc);
}

TEST(OutOfMemory, OtherFailuresAreNotTakenForIt) {
  const TempFolder folder;
  TrainConfig config = tiny_config(folder.path());
  config.training.auto_find_batch_size = true;
  EXPECT_THROW((void)train_tiny(config, {.during_forward = [](int) { throw data_error("something else"); }}), Error);
}

// transformers 5.17, Trainer._run_epoch: tr_loss += tr_loss / (1 + global_step - globalstep_last_logged).
TEST(LossFilter, PutsTheTrainersMeanInTheLossesPlace) {
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  LoopTotals totals;
  totals.add_step(3, true);
  totals.add_step(5, true);
  totals.add_step(kNan, true);
  EXPECT_DOUBLE_EQ(totals.loss_since_log, 8 + 8.0 / 3);
  totals.add_step(std::numeric_limits<double>::infinity(), true);
  EXPECT_DOUBLE_EQ(totals.loss_since_log, (8 + 8.0 / 3) * 1.25);
  EXPECT_DOUBLE_EQ(totals.loss, totals.loss_since_log);
  EXPECT_EQ(totals.steps, 4);
  totals.add_step(kNan, false);
  EXPECT_TRUE(std::isnan(totals.loss_since_log));
}

TEST(MemoryMetrics, AreInTheResultsWhenWanted) {
  const TempFolder folder;
  TrainConfig config = tiny_config(folder.path());
  EXPECT_FALSE(train_tiny(config, {}).outcome.train_metrics.contains("train_mem_cpu_alloc_delta"));
  config.training.output_dir += "/with";
  config.training.skip_memory_metrics = false;
  const OrderedJson metrics = train_tiny(config, {}).outcome.train_metrics;
  // The keys that transformers.TrainerMemoryTracker adds on a machine without a GPU, in its order.
  std::vector<std::string> keys;
  for (const auto& [key, value] : metrics.items()) {
    if (key.find("mem_") != std::string::npos) keys.push_back(key);
  }
  EXPECT_EQ(keys, (std::vector<std::string>{"init_mem_cpu_alloc_delta", "init_mem_cpu_peaked_delta",
                                            "train_mem_cpu_alloc_delta", "train_mem_cpu_peaked_delta",
                                            "before_init_mem_cpu"}));
  EXPECT_GT(metrics["before_init_mem_cpu"].get<std::int64_t>(), 10 << 20);
}

}  // namespace
}  // namespace dtrain::test
