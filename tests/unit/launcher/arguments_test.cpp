#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "launcher/arguments.h"
#include "launcher/export_command.h"
#include "launcher/launch_command.h"

namespace dtrain {
namespace {

using testing::HasSubstr;

std::string refusal(const std::vector<std::string>& words) {
  try {
    (void)parse_arguments(words);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kUsage);
    EXPECT_FALSE(error.hint().empty());
    return error.what();
  }
  return "";
}

TEST(Arguments, AFileAloneMeansTrain) {
  for (const auto& words : {std::vector<std::string>{"a.toml"}, {"train", "a.toml"}}) {
    const Arguments arguments = parse_arguments(words);
    EXPECT_EQ(arguments.command, Arguments::Command::kTrain);
    EXPECT_EQ(arguments.file, "a.toml");
    EXPECT_EQ(arguments.bind, BindMode::kFair);
  }
}

TEST(Arguments, OptionsMayStandBeforeAndAfterTheFile) {
  const std::vector<std::string> overrides = {"training.seed=1", "data.labels=[\"a b\"]"};
  for (const auto& words :
       {std::vector<std::string>{"--set", overrides[0], "x/y", "--set", overrides[1], "--bind", "none"},
        {"x/y", "--set=" + overrides[0], "--set=" + overrides[1], "--bind=none"},
        {"--bind", "none", "--set", overrides[0], "train", "x/y", "--set", overrides[1]}}) {
    const Arguments arguments = parse_arguments(words);
    EXPECT_EQ(arguments.command, Arguments::Command::kTrain);
    EXPECT_EQ(arguments.file, "x/y");
    EXPECT_EQ(arguments.overrides, overrides);
    EXPECT_EQ(arguments.bind, BindMode::kNone);
  }
}

TEST(Arguments, CommandsAreRecognised) {
  EXPECT_EQ(parse_arguments({"config", "a.toml"}).command, Arguments::Command::kConfig);
  EXPECT_TRUE(parse_arguments({"config", "--markdown"}).markdown);
  EXPECT_TRUE(parse_arguments({"config", "--arguments"}).arguments_page);
  EXPECT_EQ(parse_arguments({"doctor", "/tmp"}).folder, "/tmp");
  EXPECT_EQ(parse_arguments({"help", "training"}).section, "training");
  EXPECT_EQ(parse_arguments({"a.toml", "--help"}).command, Arguments::Command::kHelp);
  EXPECT_EQ(parse_arguments({"--version"}).command, Arguments::Command::kVersion);
}

TEST(Arguments, UsesOfAModel) {
  const Arguments evaluate = parse_arguments({"evaluate", "a.toml", "--model", "m", "--out", "o.json"});
  EXPECT_EQ(evaluate.command, Arguments::Command::kEvaluate);
  EXPECT_EQ(evaluate.file, "a.toml");
  EXPECT_EQ(evaluate.model, "m");
  EXPECT_EQ(evaluate.out, "o.json");
  EXPECT_FALSE(evaluate.unlabelled);
  const Arguments predict = parse_arguments({"--data", "new.jsonl", "predict", "--unlabelled", "a.toml"});
  EXPECT_EQ(predict.command, Arguments::Command::kPredict);
  EXPECT_EQ(predict.file, "a.toml");
  EXPECT_EQ(predict.data, "new.jsonl");
  EXPECT_TRUE(predict.unlabelled);
  // Options of another command are refused, not ignored.
  EXPECT_NE(refusal({"a.toml", "--model", "m"}), "");
  EXPECT_NE(refusal({"evaluate", "a.toml", "--unlabelled"}), "");
}

TEST(Arguments, LaunchAndSlurm) {
  const Arguments plain = parse_arguments({"launch", "a.toml"});
  EXPECT_EQ(plain.command, Arguments::Command::kLaunch);
  EXPECT_EQ(plain.max_restarts, 10);
  EXPECT_EQ(plain.launcher, "mpirun");
  const Arguments launch =
      parse_arguments({"launch", "--ranks", "4", "--max-restarts", "3", "--backoff=0.5", "--launcher", "srun",
                       "--launcher-args=--hostfile hosts", "a.toml", "--set", "training.seed=1"});
  EXPECT_EQ(launch.file, "a.toml");
  EXPECT_EQ(launch.ranks, 4);
  EXPECT_EQ(launch.max_restarts, 3);
  EXPECT_EQ(launch.backoff, 0.5);
  EXPECT_EQ(launch.launcher, "srun");
  EXPECT_EQ(launch.launcher_args, "--hostfile hosts");
  EXPECT_THAT(launch.overrides, testing::ElementsAre("training.seed=1"));
  const Arguments slurm = parse_arguments({"slurm", "a.toml", "--nodes", "2", "--ranks-per-node", "4", "--submit"});
  EXPECT_EQ(slurm.command, Arguments::Command::kSlurm);
  EXPECT_EQ(slurm.slurm.nodes, 2);
  EXPECT_EQ(slurm.slurm.ranks_per_node, 4);
  EXPECT_TRUE(slurm.slurm.submit);
  EXPECT_NE(refusal({"launch", "a.toml", "--launcher", "ssh"}), "");
  EXPECT_NE(refusal({"launch", "a.toml", "--ranks", "0"}), "");
  EXPECT_NE(refusal({"launch", "a.toml", "--nodes", "2"}), "");
  EXPECT_NE(refusal({"a.toml", "--max-restarts", "2"}), "");
}

TEST(Arguments, TheSupervisorIsOneProcess) {
  try {
    (void)run_launch(parse_arguments({"launch", "a.toml"}), {.world_size = 2});
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kUsage);
    EXPECT_THAT(error.hint(), HasSubstr("dtrain launch --ranks 2 a.toml"));
  }
}

TEST(Arguments, ExportAndPrepare) {
  const Arguments moved =
      parse_arguments({"export", "results/a", "--out", "b", "--dtype=bfloat16", "--max-shard-size", "1GB"});
  EXPECT_EQ(moved.command, Arguments::Command::kExport);
  EXPECT_EQ(moved.folder, "results/a");
  EXPECT_EQ(moved.out, "b");
  EXPECT_EQ(moved.dtype, "bfloat16");
  EXPECT_EQ(moved.max_shard_size, "1GB");
  EXPECT_THAT(refusal({"export", "results/a"}), HasSubstr("--out is missing"));
  EXPECT_THAT(refusal({"export", "--out", "b"}), HasSubstr("no folder"));
  const Arguments prepare = parse_arguments({"prepare", "a.toml", "--set", "data.train_samples=5"});
  EXPECT_EQ(prepare.command, Arguments::Command::kPrepare);
  EXPECT_EQ(prepare.file, "a.toml");
  EXPECT_EQ(prepare.overrides.size(), 1U);
  EXPECT_NE(refusal({"prepare"}), "");
}

TEST(SizeInBytes, UnitsOfTheHub) {
  EXPECT_EQ(size_in_bytes("5GB"), 5'000'000'000U);
  EXPECT_EQ(size_in_bytes("1.5 mb"), 1'500'000U);
  EXPECT_EQ(size_in_bytes("2GiB"), std::uint64_t{2} << 30);
  EXPECT_EQ(size_in_bytes("1000"), 1000U);
  for (const char* bad : {"", "GB", "5TBX", "-1GB", "0", "nan", "inf", "1e30GB", "5 G B X"}) {
    EXPECT_THROW((void)size_in_bytes(bad), Error) << bad;
  }
}

TEST(Arguments, Report) {
  const Arguments report = parse_arguments({"report", "results/a", "--out", "a.html"});
  EXPECT_EQ(report.command, Arguments::Command::kReport);
  EXPECT_EQ(report.folder, "results/a");
  EXPECT_EQ(report.out, "a.html");
  EXPECT_THAT(refusal({"report"}), HasSubstr("no folder"));
  EXPECT_NE(refusal({"report", "a", "--set", "a.b=1"}), "");
}

TEST(Arguments, MistakesNameTheNearestWord) {
  EXPECT_THAT(refusal({"trian"}), HasSubstr("did you mean train?"));
  EXPECT_THAT(refusal({"docter"}), HasSubstr("did you mean doctor?"));
  EXPECT_THAT(refusal({"--sett", "a=b", "x.toml"}), HasSubstr("--sett: did you mean --set?"));
  EXPECT_THAT(refusal({"x.toml", "--ranks=3"}), HasSubstr("--ranks"));
  EXPECT_THAT(refusal({}), HasSubstr("no configuration file"));
  EXPECT_THAT(refusal({"config"}), HasSubstr("no configuration file"));
  EXPECT_THAT(refusal({"a.toml", "b.toml"}), HasSubstr("b.toml"));
  EXPECT_THAT(refusal({"a.toml", "--bind", "some"}), HasSubstr("some"));
  EXPECT_THAT(refusal({"a.toml", "--set"}), HasSubstr("--set"));
}

TEST(Arguments, HelpTeaches) {
  const std::string text = help_text("");
  for (const char* word : {"mpirun -np 4 dtrain", "srun", "--set", "Exit codes", "75", "dtrain help training",
                           "dtrain help hub", "dtrain export", "dtrain prepare", "docs/settings.md"}) {
    EXPECT_THAT(text, HasSubstr(word));
  }
  EXPECT_THAT(help_text("training"), HasSubstr("learning_rate"));
  EXPECT_THAT(help_text("hub"), HasSubstr("repo  (training.hub_model_id)"));
  EXPECT_THROW((void)help_text("trainin"), Error);
}

}  // namespace
}  // namespace dtrain
