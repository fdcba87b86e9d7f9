// Tensors stacked by name; what does not fit together is refused with the numbers of the examples.
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "datasets/collators/stacking_collator.h"

namespace dtrain {
namespace {

using testing::HasSubstr;

Example example_of(std::map<std::string, at::Tensor> tensors) {
  Example example;
  example.tensors = std::move(tensors);
  return example;
}

std::string error_of(const std::vector<Example>& examples) {
  const std::vector<std::int64_t> index = {4, 9};
  try {
    (void)make_stacking_collator()->collate(examples, {.epoch = 0, .index = index});
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kData);
    return error.what();
  }
  return "";
}

TEST(StackingCollator, StacksEveryTensor) {
  const std::vector<Example> examples = {example_of({{"x", at::full({2, 3}, 1.0)}, {"y", at::full({}, 5, at::kLong)}}),
                                         example_of({{"x", at::full({2, 3}, 2.0)}, {"y", at::full({}, 6, at::kLong)}})};
  const std::vector<std::int64_t> index = {4, 9};
  const Batch batch = make_stacking_collator()->collate(examples, {.epoch = 0, .index = index});
  EXPECT_EQ(batch.size, 2);
  EXPECT_EQ(batch["x"].sizes(), (std::vector<std::int64_t>{2, 2, 3}));
  EXPECT_EQ(batch["x"][1][0][0].item<float>(), 2.0F);
  EXPECT_EQ(batch["y"].scalar_type(), at::kLong);
  EXPECT_EQ(batch["y"][0].item<std::int64_t>(), 5);
}

TEST(StackingCollator, RefusesWhatDoesNotFit) {
  EXPECT_EQ(error_of({example_of({{"x", at::full({2}, 1.0)}}), example_of({{"x", at::full({3}, 1.0)}})}),
            "tensor \"x\" of example 9 is Float [3], that of example 4 is Float [2]");
  EXPECT_EQ(error_of({example_of({{"x", at::full({2}, 1.0)}}), example_of({{"x", at::full({2}, 1, at::kLong)}})}),
            "tensor \"x\" of example 9 is Long [2], that of example 4 is Float [2]");
  EXPECT_THAT(error_of({example_of({{"x", at::full({2}, 1.0)}}), example_of({{"z", at::full({2}, 1.0)}})}),
              HasSubstr("examples 4 and 9"));
  EXPECT_THAT(error_of({example_of({{"x", at::full({2}, 1.0)}}),
                        example_of({{"x", at::full({2}, 1.0)}, {"z", at::full({2}, 1.0)}})}),
              HasSubstr("examples 4 and 9"));
}

}  // namespace
}  // namespace dtrain
