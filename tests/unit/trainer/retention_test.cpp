// RetentionPolicy over every small case: what is kept follows from the rule, and replays of the Trainer's rotation
// agree.
#include <algorithm>

#include <gtest/gtest.h>

#include "trainer/checkpoint/retention.h"

namespace dtrain {
namespace {

using Steps = std::vector<std::int64_t>;

TEST(Retention, EveryCaseUpToSevenCheckpoints) {
  for (std::int64_t count = 0; count <= 7; ++count) {
    Steps published;
    for (std::int64_t i = 1; i <= count; ++i) published.push_back(10 * i);
    for (std::int64_t best = 0; best <= count; ++best) {  // 0: none
      const auto best_step = best == 0 ? std::nullopt : std::optional<std::int64_t>(10 * best);
      for (std::int64_t limit = -1; limit <= 8; ++limit) {
        const Steps victims = steps_to_delete(published, best_step, limit);
        const auto is_victim = [&](std::int64_t step) { return std::count(victims.begin(), victims.end(), step) == 1; };
        const std::int64_t kept = count - static_cast<std::int64_t>(victims.size());
        SCOPED_TRACE(testing::Message() << count << " published, best " << best << ", limit " << limit);
        EXPECT_TRUE(std::is_sorted(victims.begin(), victims.end()));
        for (const std::int64_t step : victims) EXPECT_TRUE(std::count(published.begin(), published.end(), step) == 1);
        if (limit <= 0) {
          EXPECT_TRUE(victims.empty());
          continue;
        }
        if (count > 0) {
          EXPECT_FALSE(is_victim(10 * count));
        }
        if (best_step) {
          EXPECT_FALSE(is_victim(*best_step));
        }
        const bool two_protected = best_step && best != count;
        const std::int64_t wanted = std::min(count, std::max<std::int64_t>(limit, two_protected ? 2 : 1));
        EXPECT_EQ(kept, wanted);
        // Of those that may go, the oldest go.
        for (const std::int64_t gone : victims) {
          for (const std::int64_t step : published) {
            if (step < gone && step != best_step) {
              EXPECT_TRUE(is_victim(step));
            }
          }
        }
      }
    }
  }
}

// Whatever of eight saves were the best when they were made: after each, the best and the last are there, and no more
// than the limit, or these two. Nothing that the limit allows is deleted, and nothing comes back.
TEST(Retention, BestAndLastSurviveEverySequenceOfEightSaves) {
  int sequences = 0;
  for (std::int64_t limit = 1; limit <= 4; ++limit) {
    for (unsigned improved = 0; improved < 256; ++improved, ++sequences) {
      Steps kept;
      std::optional<std::int64_t> best;
      for (std::int64_t step = 1; step <= 8; ++step) {
        if ((improved >> (step - 1)) & 1U) best = step;
        kept.push_back(step);
        const std::size_t before = kept.size();
        for (const std::int64_t victim : steps_to_delete(kept, best, limit)) std::erase(kept, victim);
        SCOPED_TRACE(testing::Message() << "limit " << limit << ", improved " << improved << ", step " << step);
        ASSERT_EQ(std::count(kept.begin(), kept.end(), step), 1);
        if (best) {
          ASSERT_EQ(std::count(kept.begin(), kept.end(), *best), 1);
        }
        const std::size_t needed = best && *best != step ? 2 : 1;
        ASSERT_EQ(kept.size(), std::min(before, std::max(static_cast<std::size_t>(limit), needed)));
      }
    }
  }
  EXPECT_EQ(sequences, 1024);
}

TEST(Retention, AsTheTrainerRotates) {
  EXPECT_EQ(steps_to_delete({30, 10, 20, 40}, std::nullopt, 2), (Steps{10, 20}));
  EXPECT_EQ(steps_to_delete({10, 20, 30, 40}, 10, 2), (Steps{20, 30}));
  EXPECT_EQ(steps_to_delete({10, 20, 30}, 20, 1), (Steps{10}));
  EXPECT_EQ(steps_to_delete({10, 20, 30}, 30, 1), (Steps{10, 20}));
  EXPECT_EQ(steps_to_delete({10, 20, 30}, 5, 1), (Steps{10, 20}));  // a best one that is no longer there
  EXPECT_EQ(steps_to_delete({10, 10, 20}, std::nullopt, 1), (Steps{10}));
}

}  // namespace
}  // namespace dtrain
