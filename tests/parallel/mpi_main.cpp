#include "tests/parallel/mpi_main.h"

#include <array>
#include <cstdint>
#include <cstdio>

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "dist/mpi_session.h"

namespace dtrain::test {
namespace {

MpiSession* the_session = nullptr;

}  // namespace

MpiSession& session() { return *the_session; }

}  // namespace dtrain::test

// All ranks run the same tests in the same order; rank 0 prints, and any failed rank fails the program.
int main(int argc, char** argv) {
  using namespace dtrain;
  testing::InitGoogleTest(&argc, argv);
  try {
    MpiSession session;
    test::the_session = &session;
    session.host().set_deadline(60);
    at::set_num_threads(1);
    auto& listeners = testing::UnitTest::GetInstance()->listeners();
    if (!session.world().is_first()) {
      // Failures of other ranks still have to be seen.
      class FailuresOnly : public testing::EmptyTestEventListener {
        void OnTestPartResult(const testing::TestPartResult& result) override {
          if (result.failed()) {
            std::fprintf(stderr, "rank %d: %s:%d: %s\n", test::session().world().rank,
                         result.file_name() == nullptr ? "?" : result.file_name(), result.line_number(),
                         result.summary());
          }
        }
      };
      delete listeners.Release(listeners.default_result_printer());
      listeners.Append(new FailuresOnly);
    }
    std::array<std::int64_t, 1> failed = {RUN_ALL_TESTS()};
    session.host().all_reduce_max("failed tests", failed);
    if (failed[0] != 0) end_job(ExitCode::kInternal);
    session.finish();
    return 0;
  } catch (const Error& error) {
    if (report_failure(error.code())) std::fprintf(stderr, "error: %s\n", error.what());
    end_job(error.code());
  }
}
