// Arguments: the command line of dtrain, read and checked. A plain value.
#pragma once

#include <string>
#include <vector>

#include "dist/core_binding.h"

namespace dtrain {

// What `dtrain slurm` asks Slurm for; empty: as the site says.
struct SlurmJob {
  int nodes = 1;
  int ranks_per_node = 1;
  std::string name;  // "": that of the file
  std::string time;
  std::string partition;
  std::string account;
  int gpus_per_node = -1;  // -1: one for each rank, none with training.use_cpu
  int cpus_per_rank = 0;
  std::vector<std::string> sbatch_options;  // lines of the script as they are
  bool submit = false;
};

struct Arguments {
  enum class Command {
    kTrain,
    kEvaluate,
    kPredict,
    kPrepare,
    kExport,
    kSweep,
    kLaunch,
    kSlurm,
    kReport,
    kExplain,
    kInspect,
    kConfig,
    kDoctor,
    kHelp,
    kVersion
  };
  Command command = Command::kTrain;
  std::string file;                    // of kTrain, kEvaluate, kPredict, kPrepare, kSweep, kLaunch, kSlurm and kConfig
  std::vector<std::string> overrides;  // --set, in order
  BindMode bind = BindMode::kFair;
  std::string model;  // evaluate, predict: the folder of the model, "" for training.output_dir
  std::string data;   // evaluate, predict: the data, "" for data.eval
  std::string out;    // evaluate, predict, report: the file to write, "" for the one in the folder; export: the folder
  bool unlabelled = false;          // predict: the data has no label column
  bool markdown = false;            // config: the page of all settings instead
  bool arguments_page = false;      // config: the page from TrainingArguments to dtrain instead
  int ranks = 0;                    // sweep, launch: mpirun starts so many; 0: without mpirun
  int max_restarts = 10;            // launch, slurm: attempts after the first
  double backoff = 1;               // launch: seconds before the first restart
  std::string launcher = "mpirun";  // launch: what starts the ranks
  std::string launcher_args;        // launch: words for it, before the program
  SlurmJob slurm;
  std::string section;  // help: the section whose settings to explain, "" for the general help
  // doctor: where the disk is measured; report, explain: the run; export, inspect: the run or the checkpoint
  std::string folder = ".";
  std::string dtype;                   // export: type of the weights, "" for the stored one
  std::string max_shard_size = "5GB";  // export
};

// `arguments` without the name of the program. Throws Error(kUsage) for whatever it does not understand, with the
// nearest command or option. `FILE.toml` alone means `train FILE.toml`.
[[nodiscard]] Arguments parse_arguments(const std::vector<std::string>& arguments);

// The text of --help; with a section ("training"), of its settings. Throws Error(kUsage) for an unknown section.
[[nodiscard]] std::string help_text(const std::string& section);

}  // namespace dtrain
