#include <filesystem>
#include <new>

#include <c10/util/Exception.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "dist/failure.h"

namespace dtrain {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(Failure, EveryExceptionBecomesAnErrorWithACode) {
  EXPECT_EQ(as_error(data_error("x", "y")).hint(), "y");
  EXPECT_EQ(as_error(data_error("x")).code(), ExitCode::kData);
  EXPECT_EQ(as_error(std::bad_alloc()).code(), ExitCode::kInternal);
  EXPECT_THAT(as_error(std::bad_alloc()).hint(), HasSubstr("per_device_train_batch_size"));
  EXPECT_EQ(as_error(std::runtime_error("first\nsecond")).what(), std::string("first"));
  const std::filesystem::filesystem_error disk("cannot copy", std::make_error_code(std::errc::no_space_on_device));
  EXPECT_EQ(as_error(disk).code(), ExitCode::kIo);
}

TEST(Failure, LibTorchsStackTraceIsLeftOut) {
  try {
    TORCH_CHECK(false, "shapes differ");
  } catch (const std::exception& exception) {
    const Error error = as_error(exception);
    EXPECT_EQ(error.code(), ExitCode::kInternal);
    EXPECT_THAT(error.what(), HasSubstr("shapes differ"));
    EXPECT_THAT(error.what(), Not(HasSubstr("\n")));
    EXPECT_TRUE(error.hint().empty());
  }
  try {
    TORCH_CHECK(false, "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes");
  } catch (const std::exception& exception) {
    EXPECT_THAT(as_error(exception).hint(), HasSubstr("per_device_train_batch_size"));
  }
}

TEST(Failure, TheLineNamesRankHostAndStepWhereTheyMatter) {
  World world;
  world.rank = 1;
  world.world_size = 2;
  world.host = "node7";
  EXPECT_EQ(failure_text(data_error("bad", "do this"), world, 3),
            "error: rank 1 on node7 at step 3: bad\nhint: do this\n");
  EXPECT_EQ(failure_text(data_error("bad"), world, 0), "error: rank 1 on node7: bad\n");
  EXPECT_EQ(failure_text(usage_error("bad"), world, 0), "error: bad\n");
  EXPECT_EQ(failure_text(data_error("step 3: the loss"), world, 3), "error: step 3: the loss\n");
  EXPECT_EQ(failure_text(data_error("rank 0: bad"), world, 3), "error: step 3: rank 0: bad\n");
  EXPECT_EQ(failure_text(data_error("bad"), World{}, 3), "error: step 3: bad\n");
  EXPECT_EQ(failure_text(data_error("bad"), World{}, 0), "error: bad\n");
}

}  // namespace
}  // namespace dtrain
