// Linked into a test program, it seeds LibTorch's generator before every test, which LibTorch itself seeds from the
// clock: a failure stays a failure. --gtest_repeat=N goes through N seeds.
#include <gtest/gtest.h>

#include <ATen/Context.h>

namespace {

class SeedTensors : public testing::EmptyTestEventListener {
 public:
  void OnTestIterationStart(const testing::UnitTest& /*all*/, int iteration) override { iteration_ = iteration; }
  void OnTestStart(const testing::TestInfo& /*test*/) override {
    at::manual_seed(static_cast<std::uint64_t>(iteration_) + 1);
  }

 private:
  int iteration_ = 0;
};

[[maybe_unused]] const bool kAdded = [] {
  testing::UnitTest::GetInstance()->listeners().Append(new SeedTensors);
  return true;
}();

}  // namespace
