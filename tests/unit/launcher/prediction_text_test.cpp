#include "launcher/prediction_text.h"

#include <limits>

#include <gtest/gtest.h>

namespace dtrain {
namespace {

const std::vector<std::string> kNames = {"neg", "neutral", "pos \"!\""};

TEST(PredictionText, OneClass) {
  const std::vector<float> logits = {0, 0.6931472F, 0};  // 1 : 2 : 1
  EXPECT_EQ(prediction_text(7, logits, ProblemType::kSingleLabel, kNames),
            R"({"index":7,"label":"neutral","label_id":1,"scores":[0.25,0.5,0.25]})");
  const std::vector<float> far = {-2000, 0, 3000};  // no overflow
  EXPECT_EQ(prediction_text(0, far, ProblemType::kSingleLabel, kNames),
            R"({"index":0,"label":"pos \"!\"","label_id":2,"scores":[0,0,1]})");
}

TEST(PredictionText, SeveralLabels) {
  const std::vector<float> logits = {1.0986123F, -1.0986123F, 0};
  const Json line = Json::parse(prediction_text(1, logits, ProblemType::kMultiLabel, kNames));
  EXPECT_EQ(line.at("labels"), Json({"neg"}));
  EXPECT_NEAR(line.at("scores")[0].get<double>(), 0.75, 1e-7);
  EXPECT_NEAR(line.at("scores")[1].get<double>(), 0.25, 1e-7);
  EXPECT_EQ(line.at("scores")[2], 0.5);
}

TEST(PredictionText, NumbersAndWhatIsNone) {
  EXPECT_EQ(prediction_text(0, std::vector<float>{3.5F}, ProblemType::kRegression, {}), R"({"index":0,"value":3.5})");
  EXPECT_EQ(
      prediction_text(0, std::vector<float>{1, std::numeric_limits<float>::quiet_NaN()}, ProblemType::kRegression, {}),
      R"({"index":0,"values":[1,null]})");
}

TEST(PredictionText, NamesInTheOrderOfTheirNumbers) {
  const Json config = {{"id2label",
                        {{"0", "a"},
                         {"10", "k"},
                         {"1", "b"},
                         {"2", "c"},
                         {"3", "d"},
                         {"4", "e"},
                         {"5", "f"},
                         {"6", "g"},
                         {"7", "h"},
                         {"8", "i"},
                         {"9", "j"}}}};
  EXPECT_EQ(class_names(config), (std::vector<std::string>{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k"}));
}

}  // namespace
}  // namespace dtrain
