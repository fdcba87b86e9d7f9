#include <array>
#include <cstdio>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "core/file.h"
#include "launcher/slurm_command.h"
#include "tests/support/temp_folder.h"

namespace dtrain {
namespace {

using testing::HasSubstr;
using testing::Not;

std::string script_of(const std::vector<std::string>& words, bool use_cpu = false) {
  TrainConfig config;
  config.training.use_cpu = use_cpu;
  return slurm_script(parse_arguments(words), config, "/opt/dtrain", "/work/here");
}

TEST(SlurmScript, HoldsWhatIsAskedFor) {
  const std::string script =
      script_of({"slurm", "/data/imdb.toml", "--nodes", "2", "--ranks-per-node=4", "--time", "1-00:00:00",
                 "--partition", "gpu", "--account", "me", "--sbatch=--constraint=a100", "--sbatch=--exclusive"});
  for (const char* line : {"--job-name=imdb", "--nodes=2", "--ntasks-per-node=4", "--gpus-per-node=4", "--requeue",
                           "--signal=USR2@120", "--time=1-00:00:00", "--partition=gpu", "--account=me",
                           "--constraint=a100", "--exclusive", "--chdir=/work/here", "--open-mode=append"}) {
    EXPECT_THAT(script, HasSubstr(std::string("#SBATCH ") + line + "\n"));
  }
  EXPECT_THAT(script, Not(HasSubstr("cpus-per-task")));
}

TEST(SlurmScript, GpusFollowTheRanksUnlessTold) {
  EXPECT_THAT(script_of({"slurm", "/a.toml"}, /*use_cpu=*/true), Not(HasSubstr("gpus-per-node")));
  EXPECT_THAT(script_of({"slurm", "/a.toml", "--gpus-per-node", "0"}), Not(HasSubstr("gpus-per-node")));
  EXPECT_THAT(script_of({"slurm", "/a.toml", "--gpus-per-node", "2"}), HasSubstr("--gpus-per-node=2\n"));
}

// What bash makes of the command: words with spaces, quotes and dollars arrive as they were given.
TEST(SlurmScript, ArgumentsSurviveTheShell) {
  const test::TempFolder folder;
  const std::vector<std::string> values = {"data.text=it's $HOME `x`", "model.path=a b\\c", "training.run_name=\"q\""};
  std::vector<std::string> words = {"slurm", "/my data/a.toml"};
  for (const std::string& value : values) words.insert(words.end(), {"--set", value});
  TrainConfig config;
  const std::string fake = (folder.path() / "fake program").string();
  write_file_synced(fake, "#!/bin/bash\nprintf '%s\\n' \"$@\" > \"$0.words\"\nexit 7\n");
  std::filesystem::permissions(fake, std::filesystem::perms::owner_all);
  const std::filesystem::path script = folder.path() / "job";
  write_file_synced(script, slurm_script(parse_arguments(words), config, fake, "/"));
  const int status = std::system(("bash '" + script.string() + "'").c_str());
  EXPECT_EQ(WEXITSTATUS(status), 7);
  std::string expected = "launch\n--launcher\nsrun\n--max-restarts\n10\n/my data/a.toml\n";
  for (const std::string& value : values) expected += "--set\n" + value + "\n";
  EXPECT_EQ(read_file(fake + ".words"), expected + "--set\ntraining.resume_from_checkpoint=latest\n");
}

TEST(SlurmScript, NothingBreaksOutOfItsLine) {
  for (const char* bad : {"a\nrm -rf x", "a\"b"}) {
    try {
      (void)script_of({"slurm", "/a.toml", "--partition", bad});
      ADD_FAILURE() << bad;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kUsage);
      EXPECT_THAT(error.what(), HasSubstr("--partition"));
    }
  }
}

}  // namespace
}  // namespace dtrain
