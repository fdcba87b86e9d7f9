#include <gtest/gtest.h>

#include "core/error.h"
#include "launcher/inputs.h"

namespace dtrain {
namespace {

TEST(Inputs, TheProblemFollowsFromSettingsThenFromTheModel) {
  const Json two = {{"id2label", {{"0", "neg"}, {"1", "pos"}}}};
  const Json one = {{"id2label", {{"0", "score"}}}};
  const Json many = {{"id2label", two["id2label"]}, {"problem_type", "multi_label_classification"}};
  ModelConfig settings;
  EXPECT_EQ(problem_of(settings, two).type, ProblemType::kSingleLabel);
  EXPECT_EQ(problem_of(settings, two).num_labels, 2);
  EXPECT_EQ(problem_of(settings, one).type, ProblemType::kRegression);
  EXPECT_EQ(problem_of(settings, many).type, ProblemType::kMultiLabel);
  EXPECT_EQ(problem_of(settings, Json::object()).num_labels, 0);
  EXPECT_EQ(problem_of(settings, Json::object()).type, ProblemType::kSingleLabel);
  settings.num_labels = 1;
  EXPECT_EQ(problem_of(settings, two).type, ProblemType::kRegression);
  settings.problem_type = "single_label_classification";
  settings.num_labels = 5;
  EXPECT_EQ(problem_of(settings, many).type, ProblemType::kSingleLabel);
  EXPECT_EQ(problem_of(settings, many).num_labels, 5);
  EXPECT_THROW((void)problem_of(ModelConfig{}, Json{{"problem_type", "guess"}}), Error);
}

}  // namespace
}  // namespace dtrain
