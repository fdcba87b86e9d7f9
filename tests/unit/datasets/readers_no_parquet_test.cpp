// A build without Apache Arrow says so.
#include <gtest/gtest.h>

#include "tests/support/files.h"
#include "tests/unit/datasets/readers_fixture.h"

namespace dtrain {
namespace {

using test::Readers;

TEST_F(Readers, ParquetNeedsApacheArrow) {
  EXPECT_FALSE(has_parquet());
  options_.path = test::test_data("readers/plain.parquet");
  expect_error(ExitCode::kUsage, {"plain.parquet", "reads no Parquet"}, "-DDTRAIN_PARQUET=ON");
}

}  // namespace
}  // namespace dtrain
