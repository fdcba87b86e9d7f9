// Arguments: the command line of dtrain, read and checked. A plain value.
#pragma once

#include <string>
#include <vector>

#include "dist/core_binding.h"

namespace dtrain {

struct Arguments {
  enum class Command {
    kTrain,
    kEvaluate,
    kPredict,
    kPrepare,
    kExport,
    kSweep,
    kReport,
    kExplain,
    kConfig,
    kDoctor,
    kHelp,
    kVersion
  };
  Command command = Command::kTrain;
  std::string file;                    // of kTrain, kEvaluate, kPredict, kPrepare, kSweep and kConfig
  std::vector<std::string> overrides;  // --set, in order
  BindMode bind = BindMode::kFair;
  std::string model;  // evaluate, predict: the folder of the model, "" for training.output_dir
  std::string data;   // evaluate, predict: the data, "" for data.eval
  std::string out;    // evaluate, predict, report: the file to write, "" for the one in the folder; export: the folder
  bool unlabelled = false;      // predict: the data has no label column
  bool markdown = false;        // config: the page of all settings instead
  bool arguments_page = false;  // config: the page from TrainingArguments to dtrain instead
  int ranks = 0;                // sweep: mpirun starts each trial with so many; 0: without mpirun
  std::string section;          // help: the section whose settings to explain, "" for the general help
  // doctor: where the disk is measured; report, explain: the run; export: the run or the checkpoint
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
