// Collating and loading: tensors, slots, weights, order, errors and an early end.
#include "datasets/batch_loader.h"

#include <array>
#include <atomic>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include <ATen/ops/equal.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "core/json.h"
#include "datasets/collators/padding_collator.h"
#include "tests/support/files.h"

namespace dtrain {
namespace {

// Example i has i % 5 + 1 ids, all of them i, and label i % 3. Asking for `broken` fails.
class CountingDataset : public Dataset {
 public:
  explicit CountingDataset(std::int64_t size, std::int64_t broken = -1) : broken_(broken) {
    for (std::int64_t i = 0; i < size; ++i) {
      ids_.emplace_back(static_cast<std::size_t>(i % 5 + 1), static_cast<std::int32_t>(i));
      labels_.push_back({static_cast<double>(i % 3)});
    }
  }
  [[nodiscard]] std::int64_t size() const override { return static_cast<std::int64_t>(ids_.size()); }
  [[nodiscard]] Example get(std::int64_t index) const override {
    ++asked_;
    if (index == broken_) throw data_error("example " + std::to_string(index) + " is broken");
    return {ids_[static_cast<std::size_t>(index)], labels_[static_cast<std::size_t>(index)]};
  }
  [[nodiscard]] std::string digest() const override { return "counting"; }
  [[nodiscard]] int asked() const { return asked_; }

 private:
  std::int64_t broken_;
  std::vector<std::vector<std::int32_t>> ids_;
  std::vector<std::array<double, 1>> labels_;
  mutable std::atomic<int> asked_{0};
};

std::vector<std::vector<std::int64_t>> rows(const at::Tensor& tensor) {
  EXPECT_EQ(tensor.scalar_type(), at::kLong);
  std::vector<std::vector<std::int64_t>> result;
  for (std::int64_t i = 0; i < tensor.size(0); ++i) {
    const auto* begin = tensor.const_data_ptr<std::int64_t>() + i * tensor.size(1);
    result.emplace_back(begin, begin + tensor.size(1));
  }
  return result;
}

TEST(PaddingCollator, EqualsDataCollatorWithPadding) {
  const Json golden = read_json_file(test::test_data("golden/data_order.json"));
  for (const Json& recorded : golden.at("padding")) {
    const auto ids = recorded.at("rows").get<std::vector<std::vector<std::int32_t>>>();
    const auto labels = recorded.at("labels").get<std::vector<double>>();
    std::vector<Example> examples;
    std::int64_t tokens = 0;
    for (std::size_t i = 0; i < ids.size(); ++i) {
      examples.push_back({ids[i], {&labels[i], 1}});
      tokens += static_cast<std::int64_t>(ids[i].size());
    }
    const auto collator =
        make_padding_collator({.pad_id = 0, .pad_to_multiple_of = recorded.at("multiple").get<std::int64_t>()});
    const Batch batch = collator->collate(examples, {});
    EXPECT_EQ(rows(batch["input_ids"]), recorded.at("input_ids").get<std::vector<std::vector<std::int64_t>>>());
    EXPECT_EQ(rows(batch["attention_mask"]),
              recorded.at("attention_mask").get<std::vector<std::vector<std::int64_t>>>());
    EXPECT_EQ(batch.size, static_cast<std::int64_t>(ids.size()));
    EXPECT_EQ(batch.num_tokens, tokens);
    EXPECT_EQ(batch["labels"].scalar_type(), at::kLong);
    for (std::size_t i = 0; i < labels.size(); ++i) {
      EXPECT_EQ(batch["labels"][static_cast<std::int64_t>(i)].item<std::int64_t>(),
                static_cast<std::int64_t>(labels[i]));
    }
  }
}

TEST(PaddingCollator, PadsWithTheIdThatIsAskedFor) {
  const std::vector<std::int32_t> longer = {1, 2, 3};
  const std::vector<std::int32_t> shorter = {4};
  const std::array<double, 1> label = {0};
  const std::vector<Example> examples = {{longer, label}, {shorter, label}};
  const Batch batch = make_padding_collator({.pad_id = 50256})->collate(examples, {});
  EXPECT_EQ(rows(batch["input_ids"]), (std::vector<std::vector<std::int64_t>>{{1, 2, 3}, {4, 50256, 50256}}));
  EXPECT_EQ(rows(batch["attention_mask"]), (std::vector<std::vector<std::int64_t>>{{1, 1, 1}, {1, 0, 0}}));
}

TEST(PaddingCollator, LabelsByKind) {
  const std::vector<std::int32_t> ids = {1};
  const std::array<double, 2> one = {0.25, 1};
  const std::array<double, 2> two = {-3.5, 0};
  const std::vector<Example> numbers = {{ids, {one.data(), 1}}, {ids, {two.data(), 1}}};
  const std::vector<Example> lists = {{ids, one}, {ids, two}};
  EXPECT_TRUE(at::equal(make_padding_collator({.label_kind = LabelKind::kRegression})->collate(numbers, {})["labels"],
                        at::tensor({0.25F, -3.5F})));
  EXPECT_TRUE(at::equal(make_padding_collator({.label_kind = LabelKind::kRegression})->collate(lists, {})["labels"],
                        at::tensor({0.25F, 1.0F, -3.5F, 0.0F}).reshape({2, 2})));
  EXPECT_TRUE(at::equal(make_padding_collator({.label_kind = LabelKind::kMultiLabel})->collate(lists, {})["labels"],
                        at::tensor({0.25F, 1.0F, -3.5F, 0.0F}).reshape({2, 2})));
  // One label in a multi-label problem stays a column.
  EXPECT_EQ(make_padding_collator({.label_kind = LabelKind::kMultiLabel})->collate(numbers, {})["labels"].dim(), 2);
}

struct Setting {
  ShardOptions shard;
  std::int64_t accumulation = 1;
  std::int64_t first = 0;
  std::int64_t prefetch = 2;
};

std::vector<Batch> load(const std::shared_ptr<const Dataset>& dataset, const Setting& setting) {
  const auto order = sample_order(dataset->size(), 42, 0, Sampling::kRandom);
  const auto tokens = [&](std::int64_t i) { return std::ssize(dataset->get(i).ids); };
  BatchLoader loader(dataset, make_padding_collator({}), shard(order, setting.shard, tokens), setting.shard,
                     setting.accumulation, setting.first, setting.prefetch);
  std::vector<Batch> batches;
  while (auto batch = loader.next()) batches.push_back(std::move(*batch));
  EXPECT_FALSE(loader.next().has_value()) << "the end stays the end";
  return batches;
}

TEST(BatchLoader, OrderWeightsAndTokens) {
  const auto dataset = std::make_shared<CountingDataset>(23);
  for (const std::int64_t prefetch : {1, 3, 100}) {
    for (int rank = 0; rank < 3; ++rank) {
      const ShardOptions options{.batch_size = 4, .rank = rank, .world_size = 3};
      const auto plan = shard(sample_order(23, 42, 0, Sampling::kRandom), options,
                              [&](std::int64_t i) { return std::ssize(dataset->get(i).ids); });
      const auto batches = load(dataset, {.shard = options, .prefetch = prefetch});
      ASSERT_EQ(batches.size(), plan.size());
      for (std::size_t i = 0; i < plan.size(); ++i) {
        const Batch& batch = batches[i];
        EXPECT_EQ(batch.example_index, plan[i].index);
        EXPECT_EQ(batch.size, 4);
        double weight = 0;
        std::int64_t tokens = 0;
        for (std::size_t j = 0; j < 4; ++j) {
          EXPECT_EQ(batch.example_weight[j], plan[i].filler[j] ? 0.0F : 1.0F);
          weight += plan[i].filler[j] ? 0 : 1;
          tokens += plan[i].filler[j] ? 0 : plan[i].index[j] % 5 + 1;
          // The row is the example's own.
          EXPECT_EQ(batch["input_ids"][static_cast<std::int64_t>(j)][0].item<std::int64_t>(), plan[i].index[j]);
        }
        EXPECT_EQ(batch.weight, weight);
        EXPECT_EQ(batch.num_tokens, tokens);
      }
    }
  }
}

// However a global batch of 12 is split, an example has the same slot in it, and no slot comes twice in a step.
TEST(BatchLoader, SlotsDoNotDependOnTheSplit) {
  const auto dataset = std::make_shared<CountingDataset>(30);
  std::vector<std::set<std::pair<std::int64_t, std::int64_t>>> splits;
  for (const auto& [ranks, accumulation] :
       std::vector<std::pair<int, std::int64_t>>{{1, 1}, {1, 3}, {2, 1}, {2, 2}, {3, 1}, {4, 3}}) {
    const std::int64_t batch_size = 12 / ranks / accumulation;
    std::set<std::pair<std::int64_t, std::int64_t>> slots;  // (example, step * 12 + slot)
    for (int rank = 0; rank < ranks; ++rank) {
      const auto batches = load(dataset, {.shard = {.batch_size = batch_size, .rank = rank, .world_size = ranks},
                                          .accumulation = accumulation});
      for (std::size_t i = 0; i < batches.size(); ++i) {
        const std::int64_t step = static_cast<std::int64_t>(i) / accumulation;
        for (std::size_t j = 0; j < batches[i].slot.size(); ++j) {
          EXPECT_LT(batches[i].slot[j], 12);
          if (batches[i].example_weight[j] == 0) continue;
          EXPECT_TRUE(slots.emplace(batches[i].example_index[j], step * 12 + batches[i].slot[j]).second);
        }
      }
    }
    EXPECT_EQ(slots.size(), 30U);
    splits.push_back(slots);
  }
  for (const auto& slots : splits) EXPECT_EQ(slots, splits[0]);
}

TEST(BatchLoader, ResumesAtAMicroBatch) {
  const auto dataset = std::make_shared<CountingDataset>(20);
  const ShardOptions options{.batch_size = 3};
  const auto all = load(dataset, {.shard = options, .accumulation = 2});
  const auto rest = load(dataset, {.shard = options, .accumulation = 2, .first = 3});
  ASSERT_EQ(rest.size() + 3, all.size());
  for (std::size_t i = 0; i < rest.size(); ++i) {
    EXPECT_EQ(rest[i].example_index, all[i + 3].example_index);
    EXPECT_EQ(rest[i].slot, all[i + 3].slot);
  }
  EXPECT_TRUE(load(dataset, {.shard = options, .first = 7}).empty());
}

TEST(BatchLoader, AnErrorComesAfterTheBatchesBeforeIt) {
  const auto dataset = std::make_shared<CountingDataset>(20, /*broken=*/13);
  const ShardOptions options{.batch_size = 4};
  BatchLoader loader(dataset, make_padding_collator({}), shard(sample_order(20, 0, 0, Sampling::kSequential), options),
                     options, 1, 0, 2);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(loader.next().has_value()) << i;
  for (int i = 0; i < 2; ++i) {
    try {
      (void)loader.next();
      ADD_FAILURE() << "no error";
    } catch (const Error& error) {
      EXPECT_STREQ(error.what(), "example 13 is broken");
      EXPECT_EQ(error.code(), ExitCode::kData);
    }
  }
}

TEST(BatchLoader, StopsInTheMiddle) {
  const auto dataset = std::make_shared<CountingDataset>(1000);
  const ShardOptions options{.batch_size = 1};
  const auto plan = shard(sample_order(1000, 0, 0, Sampling::kSequential), options);
  for (int taken = 0; taken < 20; ++taken) {
    BatchLoader loader(dataset, make_padding_collator({}), plan, options, 1, 0, 3);
    for (int i = 0; i < taken; ++i) ASSERT_TRUE(loader.next().has_value());
  }
  // At most what was taken, the queue, and the one that waits for a place: nobody read ahead without bound.
  EXPECT_LE(dataset->asked(), 190 + 20 * 4);
}

}  // namespace
}  // namespace dtrain
