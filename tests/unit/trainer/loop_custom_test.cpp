// Parts of a program's own: data without tokens, a model with buffers and its own loss, optimizer, schedule,
// model_init.
#include <mutex>

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "configs/load_config.h"
#include "core/error.h"
#include "core/log.h"
#include "datasets/collators/stacking_collator.h"
#include "dist/thread_ranks.h"
#include "tests/support/temp_folder.h"
#include "tests/unit/trainer/loop_support.h"
#include "trainer/optim/optimizer_state.h"

namespace dtrain::test {
namespace {

using testing::HasSubstr;

// Points of a line, as tensors.
class Line final : public Dataset {
 public:
  explicit Line(std::int64_t size) : x_(at::arange(size).to(at::kFloat).div(static_cast<double>(size))) {}
  [[nodiscard]] std::int64_t size() const override { return x_.size(0); }
  [[nodiscard]] std::string digest() const override { return std::to_string(size()); }
  [[nodiscard]] Example get(std::int64_t index) const override {
    Example example;
    example.tensors = {{"x", x_[index]}, {"y", x_[index] * 3 - 1}};
    return example;
  }

 private:
  at::Tensor x_;
};

// y = slope x + offset, and a count of the examples seen in training, which differs between the ranks. It gives no loss
// of single examples.
class LineModel final : public Model {
 public:
  LineModel()
      : slope_(register_parameter("slope", at::zeros({1}))),
        offset_(register_parameter("offset", at::zeros({1}))),
        seen_(register_buffer("seen", at::zeros({1}, at::kLong))) {}

  [[nodiscard]] ModelOutput forward(const Batch& batch) override {
    const at::Tensor value = slope_ * batch["x"] + offset_;
    ModelOutput output = output_of((value - batch["y"]).square(), value, batch);
    output.loss_each = at::Tensor();
    if (is_training()) seen_.add_(batch.example_index.front() + 1);
    return output;
  }
  [[nodiscard]] at::Tensor seen() const { return seen_; }

 private:
  at::Tensor slope_;
  at::Tensor offset_;
  at::Tensor seen_;
};

class Momentum final : public Optimizer {
 public:
  explicit Momentum(std::vector<NamedParameter> parameters) : parameters_(std::move(parameters)) {
    for (const NamedParameter& each : parameters_) velocity_.push_back(at::zeros_like(each.value));
  }
  void step(std::span<const double> learning_rates, double gradient_scale) override {
    const at::NoGradGuard no_gradient;
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
      velocity_[i].mul_(0.5).add_(parameters_[i].value.grad(), gradient_scale);
      parameters_[i].value.sub_(velocity_[i], learning_rates[0]);
    }
  }
  [[nodiscard]] NamedTensors state() const override {
    NamedTensors state;
    for (std::size_t i = 0; i < parameters_.size(); ++i)
      state.emplace_back(parameters_[i].name + ".velocity", velocity_[i]);
    return state;
  }
  void load_state(const SafetensorsFile& file) override { load_optimizer_state(state(), file); }

 private:
  std::vector<NamedParameter> parameters_;
  std::vector<at::Tensor> velocity_;
};

TrainConfig line_config(const std::filesystem::path& folder) {
  TrainConfig config;
  config.training.output_dir = folder.string();
  config.training.per_device_train_batch_size = 4;
  config.training.learning_rate = 0.1;
  config.training.logging_steps = 1;
  config.training.save_strategy = "no";
  config.training.use_cpu = true;
  config.training.num_train_epochs = 2;
  return config;
}

struct LineResult {
  at::Tensor weights;
  at::Tensor seen;
  std::vector<OrderedJson> history;
};

LineResult train_line(TrainConfig config, int ranks, const std::function<void(TrainerParts&)>& change = {}) {
  log::set_up(0, 1, log::Level::kError, log::Level::kError);
  at::set_num_threads(1);
  Origins origins;
  resolve(config, origins);
  LineResult result;
  std::mutex mutex;
  run_thread_ranks(ranks, [&](ThreadRank& rank) {
    TrainerParts parts;
    parts.model_init = [] { return std::make_shared<LineModel>(); };
    parts.train_data = std::make_shared<Line>(32);
    parts.eval_data = std::make_shared<Line>(7);
    parts.collator = make_stacking_collator();
    parts.make_optimizer = [](std::vector<NamedParameter> parameters) {
      return std::make_unique<Momentum>(std::move(parameters));
    };
    parts.make_schedule = [](std::int64_t steps) {
      return [steps](std::int64_t finished) { return finished * 2 < steps ? 1.0 : 0.25; };
    };
    if (change) change(parts);
    parts.world = rank.world;
    parts.host = &rank.host;
    parts.communicator = rank.communicator;
    Trainer trainer(config, std::move(parts));
    (void)trainer.train();
    if (!rank.world.is_first()) return;
    const std::lock_guard lock(mutex);
    result.weights = flat_weights(trainer.model());
    result.seen = dynamic_cast<LineModel&>(trainer.model()).seen().clone();
    result.history = trainer.state().log_history;
  });
  return result;
}

TEST(LoopCustom, PartsOfOnesOwnGiveEqualNumbersOnAnyRanks) {
  const TempFolder folder;
  TrainConfig config = line_config(folder.path() / "one");
  config.training.per_device_train_batch_size = 8;
  config.training.eval_strategy = "epoch";
  const LineResult one = train_line(config, 1);
  config.training.per_device_train_batch_size = 4;
  config.training.output_dir = (folder.path() / "two").string();
  const LineResult two = train_line(config, 2);
  EXPECT_TRUE(at::allclose(one.weights, two.weights, 1e-5, 1e-6)) << one.weights << two.weights;
  ASSERT_EQ(one.history.size(), two.history.size());
  std::vector<double> rates;
  double first_loss = 0;
  for (std::size_t i = 0; i < one.history.size(); ++i) {
    for (const char* key : {"loss", "eval_loss"}) {
      if (!one.history[i].contains(key)) continue;
      EXPECT_NEAR(one.history[i][key].get<double>(), two.history[i][key].get<double>(), 1e-6);
    }
    if (one.history[i].contains("learning_rate")) rates.push_back(one.history[i]["learning_rate"]);
    if (i == 0) first_loss = one.history[i]["loss"];
  }
  EXPECT_EQ(rates, (std::vector<double>{0.1, 0.1, 0.1, 0.1, 0.025, 0.025, 0.025, 0.025}));
  // The mean of the squares of the 8 values of the first step: the loss of a model that says 0.
  EXPECT_GT(first_loss, 0.2);
  EXPECT_LT(one.history.back().value("eval_loss", one.history.back().value("train_loss", 1.0)), first_loss);
}

TEST(LoopCustom, BuffersAreThoseOfTheFirstRankAndAreSaved) {
  const TempFolder folder;
  const TrainConfig config = line_config(folder.path() / "out");
  const LineResult result = train_line(config, 2);
  const SafetensorsFile file(folder.path() / "out" / "model.safetensors");
  ASSERT_TRUE(file.has("seen"));
  EXPECT_TRUE(at::equal(file.tensor("seen"), result.seen));
  LineModel again;
  load_weights(again, folder.path() / "out");
  EXPECT_TRUE(at::equal(again.seen(), result.seen));
  EXPECT_GT(result.seen.item<std::int64_t>(), 0);
}

TEST(LoopCustom, ResumesWithTheStateOfAnOwnOptimizer) {
  const TempFolder folder;
  TrainConfig config = line_config(folder.path() / "whole");
  config.training.save_strategy = "steps";
  config.training.save_steps = 5;
  const LineResult whole = train_line(config, 2);
  config.training.resume_from_checkpoint = (folder.path() / "whole" / "checkpoint-5").string();
  config.training.output_dir = (folder.path() / "rest").string();
  const LineResult rest = train_line(config, 2);
  EXPECT_TRUE(at::equal(whole.weights, rest.weights));
  EXPECT_TRUE(at::equal(whole.seen, rest.seen));
}

TEST(LoopCustom, ModelInitIsSeeded) {
  const TempFolder folder;
  TrainConfig config = line_config(folder.path() / "out");
  config.training.seed = 5;
  at::Tensor drawn;
  (void)train_line(config, 1, [&](TrainerParts& parts) {
    parts.model_init = [&] {
      drawn = at::rand({3});
      return std::make_shared<LineModel>();
    };
  });
  at::manual_seed(5);
  EXPECT_TRUE(at::equal(drawn, at::rand({3})));
}

TEST(LoopCustom, PartsThatDoNotFitAreRefused) {
  const TempFolder folder;
  const auto error_of = [&](const TrainConfig& config, const std::function<void(TrainerParts&)>& change) {
    try {
      (void)train_line(config, 1, change);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kUsage);
      return std::string(error.what());
    }
    return std::string();
  };
  TrainConfig config = line_config(folder.path() / "out");
  EXPECT_THAT(error_of(config, [](TrainerParts& parts) { parts.model_init = {}; }), HasSubstr("neither a model"));
  config.training.shard_optimizer = true;
  EXPECT_THAT(error_of(config, {}), HasSubstr("shard_optimizer"));
  config = line_config(folder.path() / "out");
  config.training.eval_strategy = "epoch";
  EXPECT_THAT(error_of(config, [](TrainerParts& parts) { parts.eval_data.reset(); }), HasSubstr("evaluation data"));
}

}  // namespace
}  // namespace dtrain::test
