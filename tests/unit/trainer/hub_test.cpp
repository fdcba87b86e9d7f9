// The model card and the command line of uploads; the way to a server is in tests/integration/test_hub.py.
#include <cstdlib>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "core/file.h"
#include "tests/support/temp_folder.h"
#include "trainer/hub/hub_uploads.h"
#include "trainer/hub/model_card.h"

namespace dtrain {
namespace {

using test::TempFolder;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

TEST(ModelCard, OddNamesAndNumbersStayYaml) {
  ModelCardFacts facts;
  facts.name = "no";
  facts.task = "sequence-classification";
  facts.dataset = "me/123: x";
  facts.results = {{"eval_loss", 0.5}, {"eval_accuracy", 1e-05}, {"eval_f1", nullptr}, {"epoch", 1.0}};
  const std::string text = model_card(facts);
  EXPECT_THAT(text, HasSubstr("- name: \"no\"\n"));
  EXPECT_THAT(text, HasSubstr("datasets:\n- \"me/123: x\"\n"));
  EXPECT_THAT(text, HasSubstr("value: 1.0e-05\n"));  // 1e-05 would be a text
  EXPECT_THAT(text, HasSubstr("value: .nan\n"));
  EXPECT_THAT(text, Not(HasSubstr("### Training results")));
  EXPECT_TRUE(is_generated_card(text));
}

TEST(ModelCard, WithoutEvaluation) {
  ModelCardFacts facts;
  facts.name = "a";
  facts.task = "causal-lm";
  facts.from_scratch = true;
  const std::string text = model_card(facts);
  EXPECT_THAT(text, HasSubstr("  results: []\n"));
  EXPECT_THAT(text, HasSubstr("Trained from random weights"));
  EXPECT_THAT(text, Not(HasSubstr("metrics:")));
  EXPECT_THAT(text, Not(HasSubstr("evaluation set")));
}

TEST(ModelCard, LicenseOfTheBaseModel) {
  const TempFolder folder;
  const auto license = [&](const char* card) {
    folder.write("README.md", card);
    return license_of(folder.path());
  };
  EXPECT_EQ(license_of(folder.path()), "");
  EXPECT_EQ(license("---\nlanguage: en\nlicense: apache-2.0\n---\n"), "apache-2.0");
  EXPECT_EQ(license("---\r\nlicense: 'mit' # as ever\r\n---\r\n"), "mit");
  EXPECT_EQ(license("---\nlicense:\n- mit\n---\n"), "");
  EXPECT_EQ(license("---\nlicense: see below\n---\n"), "");
  EXPECT_EQ(license("---\nlanguage: en\n---\nlicense: mit\n"), "");
  EXPECT_EQ(license("license: mit\n"), "");
  EXPECT_EQ(license("---\nlicense: mit"), "mit");
}

TEST(HubUploads, CommandLine) {
  const HubTarget target{.repo = "me/a", .revision = "v2", .is_private = true, .program = "/bin/hf", .log = "log"};
  EXPECT_THAT(
      upload_command(target, {.title = "x", .folder = "/r/o ut", .files = {"a.json", "runs/*"}, .message = "The end"}),
      ElementsAre("/bin/hf", "upload", "me/a", "/r/o ut", ".", "--revision=v2", "--private", "--include=a.json",
                  "--include=runs/*", "--commit-message=The end"));
  EXPECT_EQ(shell_text({"hf", "it's", "a b", "", "--x=runs/*"}), "hf 'it'\\''s' 'a b' '' '--x=runs/*'");
}

// A program that stands for hf.
class HubUploadsTest : public testing::Test {
 protected:
  HubTarget target(const std::string& script) {
    const auto program = folder_.write("hf", "#!/bin/sh\n" + script + "\n");
    std::filesystem::permissions(program, std::filesystem::perms::owner_all);
    HubTarget target;
    target.repo = "me/a";
    target.program = program;
    target.log = folder_.path() / "hub.log";
    return target;
  }
  TempFolder folder_;
};

TEST_F(HubUploadsTest, GoOneAfterTheOther) {
  HubUploads uploads(target("echo \"$3\""));
  for (const char* name : {"/1", "/2", "/3"}) uploads.start({.title = name, .folder = name});
  EXPECT_EQ(uploads.finish(), "");
  EXPECT_FALSE(uploads.busy());
  const std::string log = read_file(folder_.path() / "hub.log");
  EXPECT_LT(log.find("\n/1\n"), log.find("\n/2\n"));
  EXPECT_LT(log.find("\n/2\n"), log.find("\n/3\n"));
}

TEST_F(HubUploadsTest, AFailureHasItsReasonAndIsForgottenByASuccess) {
  HubUploads uploads(
      target("test \"$3\" = /good || { echo first; echo 'Error: the reason'; echo more; echo; exit 3; }"));
  uploads.start({.title = "x", .folder = "/bad"});
  EXPECT_EQ(uploads.finish(), "hf ended with 3: Error: the reason");
  uploads.start({.title = "x", .folder = "/good"});
  EXPECT_EQ(uploads.finish(), "");
}

TEST_F(HubUploadsTest, AnInterruptionStopsWhatRunsAndWhatWaits) {
  const auto stage = folder_.path() / "stage";
  std::filesystem::create_directory(stage);
  HubUploads uploads(target("exec sleep 1000"));
  uploads.start({.title = "x", .folder = stage, .is_temporary = true});
  uploads.start({.title = "y", .folder = "/y"});
  EXPECT_EQ(uploads.finish([] { return true; }), "stopped");
  EXPECT_FALSE(std::filesystem::exists(stage));
}

TEST_F(HubUploadsTest, TheDestructorDoesNotWait) {
  HubUploads uploads(target("exec sleep 1000"));
  uploads.start({.title = "x", .folder = "/x", .is_temporary = false});
}

TEST_F(HubUploadsTest, AProgramThatIsGone) {
  HubTarget gone = target("exit 0");
  std::filesystem::remove(gone.program);
  HubUploads uploads(gone);
  uploads.start({.title = "x", .folder = "/x"});
  EXPECT_THAT(uploads.finish(), HasSubstr("cannot start"));
}

}  // namespace
}  // namespace dtrain
