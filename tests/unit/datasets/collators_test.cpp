// Collators of tasks in which single tokens have labels: equal to those of transformers; masking is a pure function of
// seed, epoch, example and position, with the right shares.
#include "datasets/collators/token_collator.h"

#include <cmath>
#include <map>
#include <memory>
#include <numeric>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "core/json.h"
#include "tests/support/files.h"

namespace dtrain {
namespace {

using Ids = std::vector<std::int64_t>;
using Rows = std::vector<Ids>;

Ids flat(const at::Tensor& tensor) {
  const at::Tensor whole = tensor.contiguous();
  return {whole.const_data_ptr<std::int64_t>(), whole.const_data_ptr<std::int64_t>() + whole.numel()};
}

Rows rows(const at::Tensor& tensor) {
  Rows result;
  for (std::int64_t i = 0; i < tensor.size(0); ++i) result.push_back(flat(tensor[i]));
  return result;
}

// A padded row of labels for each example, as transformers has them: -100 where there is nothing to predict.
// `shifted`: the token that predicts stands before the one it predicts.
Rows padded_labels(const Batch& batch, bool shifted) {
  const std::int64_t length = batch["input_ids"].size(1);
  Rows result(static_cast<std::size_t>(batch.size), Ids(static_cast<std::size_t>(length), kNoLabel));
  const Ids targets = flat(batch["targets"]);
  const Ids labels = flat(batch["labels"]);
  EXPECT_EQ(targets.size(), labels.size());
  std::size_t next = 0;
  for (std::size_t e = 0; e < result.size(); ++e) {
    for (std::int64_t i = 0; i < batch.target_count[e]; ++i, ++next) {
      EXPECT_EQ(targets[next] / length, static_cast<std::int64_t>(e)) << "targets follow the examples";
      result[e][static_cast<std::size_t>(targets[next] % length + (shifted ? 1 : 0))] = labels[next];
    }
  }
  EXPECT_EQ(next, labels.size());
  return result;
}

TEST(TokenCollators, EqualThoseOfTransformers) {
  int seen = 0;
  const Json golden = read_json_file(test::test_data("golden/collators.json"));
  for (const Json& recorded : golden.at("cases")) {
    const auto ids = recorded.at("rows").get<std::vector<std::vector<std::int32_t>>>();
    const auto tags = recorded.at("tags").get<std::vector<std::vector<double>>>();
    const bool causal = recorded.at("kind") == "causal";
    std::vector<Example> examples;
    for (std::size_t i = 0; i < ids.size(); ++i) {
      examples.push_back({ids[i], causal ? std::span<const double>() : std::span<const double>(tags[i])});
    }
    const TokenCollatorOptions options = {.pad_id = recorded.at("pad").get<std::int32_t>(),
                                          .pad_to_multiple_of = recorded.at("multiple").get<std::int64_t>()};
    const auto collator = causal ? make_causal_collator(options) : make_token_classification_collator(options);
    const Batch batch = collator->collate(examples, {});
    EXPECT_EQ(rows(batch["input_ids"]), recorded.at("input_ids").get<Rows>());
    EXPECT_EQ(rows(batch["attention_mask"]), recorded.at("attention_mask").get<Rows>());
    Rows expected = recorded.at("labels").get<Rows>();
    // There the model drops the first label of each row, here the collator never makes it.
    if (causal) {
      for (Ids& row : expected) row[0] = kNoLabel;
    }
    EXPECT_EQ(padded_labels(batch, causal), expected) << recorded.dump();
    EXPECT_EQ(batch.num_tokens, std::accumulate(ids.begin(), ids.end(), std::int64_t{0}, [](auto sum, const auto& row) {
                return sum + static_cast<std::int64_t>(row.size());
              }));
    ++seen;
  }
  EXPECT_EQ(seen, 27);
}

TEST(TokenCollators, AnEndOfTextInsideATextIsLearnt) {
  // transformers hides it, because GPT-2 pads with the same token.
  const std::vector<std::int32_t> ids = {5, 9, 6, 9};
  const std::vector<std::int32_t> shorter = {5, 9};
  const std::vector<Example> examples = {{ids, {}}, {shorter, {}}};
  const Batch batch = make_causal_collator({.pad_id = 9})->collate(examples, {});
  EXPECT_EQ(flat(batch["targets"]), (Ids{0, 1, 2, 4}));
  EXPECT_EQ(flat(batch["labels"]), (Ids{9, 6, 9, 9}));
  EXPECT_EQ(batch.target_count, (Ids{3, 1}));
}

TEST(TokenCollators, ALabelForEachTokenIsDemanded) {
  const std::vector<std::int32_t> ids = {1, 2, 3};
  const std::vector<double> labels = {0, 1};
  const std::vector<Example> examples = {{ids, labels}};
  EXPECT_THROW((void)make_token_classification_collator({})->collate(examples, {}), Error);
}

// `count` examples of different lengths: 1, then ids from 10 to 209, then 2.
class Texts {
 public:
  explicit Texts(std::int64_t count, std::size_t shortest = 5) {
    for (std::int64_t i = 0; i < count; ++i) {
      std::vector<std::int32_t> ids = {1};
      for (std::size_t k = 0; k < shortest + static_cast<std::size_t>(i % 7); ++k) {
        ids.push_back(static_cast<std::int32_t>(10 + (static_cast<std::size_t>(i) * 31 + k * 17) % 200));
      }
      ids.push_back(2);
      ids_.push_back(std::move(ids));
    }
  }
  [[nodiscard]] const std::vector<std::int32_t>& ids(std::int64_t i) const { return ids_[static_cast<std::size_t>(i)]; }
  [[nodiscard]] std::int64_t size() const { return static_cast<std::int64_t>(ids_.size()); }
  [[nodiscard]] Ids all() const {
    Ids index(ids_.size());
    std::iota(index.begin(), index.end(), 0);
    return index;
  }
  [[nodiscard]] Batch batch(const Collator& collator, const Ids& index, std::int64_t epoch) const {
    std::vector<Example> examples;
    for (const std::int64_t i : index) examples.push_back({ids(i), {}});
    return collator.collate(examples, {.epoch = epoch, .index = index});
  }

 private:
  std::vector<std::vector<std::int32_t>> ids_;
};

MaskingOptions masking(std::uint64_t seed = 42) {
  return {.mask_id = 3, .vocab_size = 210, .special_ids = {3, 0, 2, 1}, .seed = seed};
}

// What became of each example: its ids without padding, and its labels by position.
struct Masked {
  Ids ids;
  std::map<std::int64_t, std::int64_t> labels;
  bool operator==(const Masked&) const = default;
};

std::map<std::int64_t, Masked> by_example(const Texts& texts, const Batch& batch, const Ids& index) {
  std::map<std::int64_t, Masked> result;
  const std::int64_t length = batch["input_ids"].size(1);
  const Rows all = rows(batch["input_ids"]);
  const Ids targets = flat(batch["targets"]);
  const Ids labels = flat(batch["labels"]);
  for (std::size_t e = 0; e < index.size(); ++e) {
    const std::size_t own = texts.ids(index[e]).size();
    result[index[e]].ids.assign(all[e].begin(), all[e].begin() + static_cast<std::ptrdiff_t>(own));
  }
  for (std::size_t i = 0; i < targets.size(); ++i) {
    result[index[static_cast<std::size_t>(targets[i] / length)]].labels[targets[i] % length] = labels[i];
  }
  return result;
}

TEST(Masking, DoesNotDependOnTheSplit) {
  const Texts texts(60);
  const auto collator = make_masking_collator({.pad_to_multiple_of = 8}, masking());
  const auto whole = by_example(texts, texts.batch(*collator, texts.all(), 1), texts.all());
  std::map<std::int64_t, Masked> pieces;
  for (std::int64_t first = 0; first < 60; first += 5) {  // each piece backwards, and with other neighbours
    const Ids index = {first + 4, first + 2, first, first + 3, first + 1};
    pieces.merge(by_example(texts, texts.batch(*collator, index, 1), index));
  }
  EXPECT_EQ(pieces, whole);
}

TEST(Masking, DiffersByEpochSeedAndExampleOnly) {
  const Texts texts(40);
  const auto collator = make_masking_collator({}, masking());
  const auto of = [&](const Collator& with, std::int64_t epoch) {
    return by_example(texts, texts.batch(with, texts.all(), epoch), texts.all());
  };
  EXPECT_EQ(of(*collator, 0), of(*collator, 0));
  EXPECT_EQ(of(*collator, -1), of(*collator, -1));
  std::set<Ids> kinds;
  for (const std::int64_t epoch : {-1, 0, 1, 2})
    kinds.insert(flat(texts.batch(*collator, texts.all(), epoch)["input_ids"]));
  kinds.insert(flat(texts.batch(*make_masking_collator({}, masking(43)), texts.all(), 0)["input_ids"]));
  EXPECT_EQ(kinds.size(), 5U);
  // The same text at another index is masked in another way.
  const std::vector<std::int32_t>& same = texts.ids(6);
  const std::vector<Example> twice = {{same, {}}, {same, {}}};
  const Ids index = {6, 100};
  const Batch batch = collator->collate(twice, {.epoch = 0, .index = index});
  EXPECT_FALSE(at::equal(batch["input_ids"][0], batch["input_ids"][1]));
}

TEST(Masking, HasTheRightShares) {
  const Texts texts(3000, 40);
  const auto collator = make_masking_collator({}, masking());
  const Batch batch = texts.batch(*collator, texts.all(), 0);
  double free = 0;
  double chosen = 0;
  double masked = 0;
  double kept = 0;
  std::map<std::int64_t, int> random;
  for (const auto& [index, example] : by_example(texts, batch, texts.all())) {
    const std::vector<std::int32_t>& before = texts.ids(index);
    for (std::size_t i = 0; i < before.size(); ++i) {
      const auto label = example.labels.find(static_cast<std::int64_t>(i));
      if (before[i] < 10) {  // special
        ASSERT_EQ(label, example.labels.end());
        ASSERT_EQ(example.ids[i], before[i]);
        continue;
      }
      ++free;
      if (label == example.labels.end()) {
        ASSERT_EQ(example.ids[i], before[i]);
        continue;
      }
      ++chosen;
      ASSERT_EQ(label->second, before[i]);
      if (example.ids[i] == 3) {
        ++masked;
      } else if (example.ids[i] == before[i]) {
        ++kept;
      } else {
        ++random[example.ids[i]];
      }
    }
  }
  const auto within = [](double count, double of, double p) {
    EXPECT_LT(std::abs(count - of * p), 5 * std::sqrt(of * p * (1 - p))) << count << " of " << of;
  };
  ASSERT_GT(free, 100000);
  within(chosen, free, 0.15);
  // A random word is the mask token, or the word itself, once in 210 times each.
  within(masked, chosen, 0.8 + 0.1 / 210);
  within(kept, chosen, 0.1 + 0.1 / 210);
  within(chosen - masked - kept, chosen, 0.1 * 208 / 210);
  // Over the whole vocabulary, special ids included: about 9 draws each, none of 209 words left out or preferred.
  EXPECT_GT(random.size(), 200U);
  EXPECT_LT(random.rbegin()->first, 210);
  for (const auto& [id, count] : random) EXPECT_LT(count, 30) << id;
}

TEST(Masking, SharesMayBeChosen) {
  const Texts texts(50);
  MaskingOptions all = masking();
  all.probability = 1;
  all.mask_replace = 1;
  all.random_replace = 0;
  const Batch batch = texts.batch(*make_masking_collator({}, all), texts.all(), 0);
  for (const auto& [index, example] : by_example(texts, batch, texts.all())) {
    EXPECT_EQ(example.labels.size(), texts.ids(index).size() - 2);
    for (std::size_t i = 1; i + 1 < example.ids.size(); ++i) EXPECT_EQ(example.ids[i], 3);
  }
  MaskingOptions none = masking();
  none.mask_replace = 0;
  none.random_replace = 0;
  const Batch same = texts.batch(*make_masking_collator({}, none), texts.all(), 0);
  EXPECT_GT(same["labels"].numel(), 0);
  for (const auto& [index, example] : by_example(texts, same, texts.all())) {
    EXPECT_EQ(example.ids, Ids(texts.ids(index).begin(), texts.ids(index).end()));
  }
}

}  // namespace
}  // namespace dtrain
