// What the other ranks see when one fails, stays away or does something else. Threads as ranks.
#include <atomic>
#include <functional>
#include <string>

#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "dist/agreement.h"
#include "dist/thread_ranks.h"

namespace dtrain::test {
namespace {

// Runs the job and returns the message of the error that ended it.
std::string failure_of(int ranks, const std::function<void(ThreadRank&)>& body, ExitCode code,
                       const CommunicatorOptions& options = {}) {
  try {
    run_thread_ranks(ranks, body, options);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return {};
}

TEST(Failures, WaitingRanksSeeAFailedPeer) {
  for (const bool in_collective : {true, false}) {
    std::atomic<int> told{0};
    const auto message = failure_of(
        4,
        [&](ThreadRank& rank) {
          if (rank.world.rank == 2) throw data_error("bad record");
          try {
            if (in_collective) {
              rank.communicator->all_reduce_sum(at::ones({100'000}), "gradients")->wait();
            } else {
              rank.host.barrier("save");
            }
          } catch (const PeerFailed& error) {
            EXPECT_EQ(error.code(), ExitCode::kData);
            ++told;
            throw;
          }
        },
        ExitCode::kData);
    EXPECT_EQ(message, "bad record");
    EXPECT_EQ(told, 3);
  }
}

TEST(Failures, LaterCollectivesFailWithTheFirstReason) {
  const auto message = failure_of(
      2,
      [](ThreadRank& rank) {
        const at::Tensor tensor = at::ones({rank.world.rank == 0 ? 10 : 11});
        EXPECT_THROW(rank.communicator->all_reduce_sum(tensor, "first")->wait(), Error);
        rank.communicator->all_reduce_sum(at::ones({5}), "second")->wait();
      },
      ExitCode::kDisagree);
  EXPECT_NE(message.find("rank 0 all_reduce \"first\" of 40 bytes (Float), rank 1 all_reduce \"first\" of 44 bytes"),
            std::string::npos)
      << message;
}

TEST(Failures, AnotherTypeOrOperationIsNoticed) {
  EXPECT_NE(failure_of(
                2,
                [](ThreadRank& rank) {
                  const at::Tensor tensor = at::ones({10}, rank.world.rank == 0 ? at::kFloat : at::kInt);
                  rank.communicator->all_reduce_sum(tensor, "sum")->wait();
                },
                ExitCode::kDisagree)
                .find("(Int)"),
            std::string::npos);
  EXPECT_NE(failure_of(
                2,
                [](ThreadRank& rank) {
                  const at::Tensor tensor = at::ones({10});
                  if (rank.world.rank == 0) rank.communicator->all_reduce_sum(tensor, "sum")->wait();
                  if (rank.world.rank == 1) rank.communicator->broadcast(tensor, 1, "copy")->wait();
                },
                ExitCode::kDisagree)
                .find("broadcast \"copy\""),
            std::string::npos);
}

TEST(Failures, MissingRankIsNamedAfterTheDeadline) {
  // Rank 1 leaves without a word: its thread ends, nothing reports a failure.
  EXPECT_NE(failure_of(2,
                       [](ThreadRank& rank) {
                         if (rank.world.rank == 0) rank.communicator->all_reduce_sum(at::ones({10}), "sum")->wait();
                       },
                       ExitCode::kStalled, {.deadline_seconds = 0.2})
                .find("rank 0 waited 0.2 s for rank 1 in all_reduce \"sum\""),
            std::string::npos);
  EXPECT_NE(failure_of(2,
                       [](ThreadRank& rank) {
                         if (rank.world.rank == 0) rank.host.barrier("save");
                       },
                       ExitCode::kStalled, {.deadline_seconds = 0.2})
                .find("barrier \"save\""),
            std::string::npos);
}

TEST(Failures, DifferentHostCallsAreNamed) {
  const auto message = failure_of(
      3,
      [](ThreadRank& rank) {
        if (rank.world.rank == 2) {
          std::string bytes;
          rank.host.broadcast("settings", bytes, 0);
        } else {
          rank.host.barrier("save");
        }
      },
      ExitCode::kDisagree);
  EXPECT_NE(message.find("rank 0 is in barrier \"save\""), std::string::npos) << message;
  EXPECT_NE(message.find("rank 2 in broadcast \"settings\""), std::string::npos) << message;
}

TEST(Failures, TensorsThatCannotTravelAreRefused) {
  run_thread_ranks(2, [](ThreadRank& rank) {
    EXPECT_THROW(static_cast<void>(rank.communicator->all_reduce_sum(at::ones({4, 4}).t(), "t")), Error);
    EXPECT_THROW(static_cast<void>(rank.communicator->all_reduce_sum(at::ones({4}, at::kBool), "bool")), Error);
    EXPECT_THROW(static_cast<void>(rank.communicator->broadcast(at::ones({4}), 2, "root")), Error);
    EXPECT_THROW(static_cast<void>(rank.communicator->all_gather(at::zeros({3, 4}), at::ones({4}), "rows")), Error);
  });
}

TEST(Agreement, NamesKeyRanksAndValues) {
  const auto message = failure_of(
      4,
      [](ThreadRank& rank) {
        std::vector<AgreementItem> items = {{"model", "gpt2"}, {"seed", rank.world.rank == 1 ? "7" : "42"}};
        if (rank.world.rank != 3) items.push_back({"tokenizer", std::string(500, 'x')});
        agree(rank.host, "configuration", items);
      },
      ExitCode::kDisagree);
  EXPECT_NE(message.find("the ranks disagree about the configuration"), std::string::npos) << message;
  EXPECT_NE(message.find("seed: ranks 0, 2, 3 have \"42\", rank 1 has \"7\""), std::string::npos) << message;
  EXPECT_NE(message.find("tokenizer: rank 3 has none, ranks 0, 1, 2 have \"xxx"), std::string::npos) << message;
  EXPECT_EQ(message.find("model"), std::string::npos) << message;
  EXPECT_LT(message.size(), 400U);
}

TEST(Agreement, ValuesMayBeAnyBytes) {
  const std::string hostile("12 34 \0\n\"", 9);
  run_thread_ranks(3, [&](ThreadRank& rank) { agree(rank.host, "data", {{"a", hostile}, {"", ""}}); });
  const auto message = failure_of(
      2,
      [&](ThreadRank& rank) {
        agree(rank.host, "data", {{hostile, rank.world.rank == 0 ? hostile : ""}, {"same", hostile}});
      },
      ExitCode::kDisagree);
  EXPECT_EQ(message.find("same"), std::string::npos) << message;
}

}  // namespace
}  // namespace dtrain::test
