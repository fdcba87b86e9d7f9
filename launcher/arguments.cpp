#include "launcher/arguments.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <string_view>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "configs/config_text.h"
#include "configs/setting.h"
#include "core/error.h"
#include "launcher/inspect_command.h"

namespace dtrain {
namespace {

constexpr std::array<std::string_view, 14> kCommands = {"train",   "evaluate", "predict", "prepare", "export",
                                                        "sweep",   "launch",   "slurm",   "report",  "explain",
                                                        "inspect", "config",   "doctor",  "help"};
constexpr std::array<std::string_view, 6> kFlags = {"--unlabelled", "--markdown", "--arguments",
                                                    "--submit",     "--help",     "--version"};
// Those with a value in the next word.
constexpr std::array<std::string_view, 21> kValueOptions = {
    "--set",           "--ranks",          "--bind",         "--model",   "--data",      "--out",
    "--dtype",         "--max-shard-size", "--max-restarts", "--backoff", "--launcher",  "--launcher-args",
    "--nodes",         "--ranks-per-node", "--job-name",     "--time",    "--partition", "--account",
    "--gpus-per-node", "--cpus-per-rank",  "--sbatch"};

const char* const kSeeHelp = "dtrain --help shows commands, options and examples";

bool is_option(std::string_view word) { return word.size() > 1 && word[0] == '-'; }

// The options are checked by hand first, because a mistyped one swallows the words after it, and the message would then
// be about those.
void check_options(const std::vector<std::string>& words) {
  std::vector<std::string_view> options(kFlags.begin(), kFlags.end());
  options.insert(options.end(), kValueOptions.begin(), kValueOptions.end());
  for (const std::string& word : words) {
    if (word == "--") return;
    if (!is_option(word) || word == "-h") continue;
    const std::string name = word.substr(0, word.find('='));
    if (std::find(options.begin(), options.end(), name) != options.end()) continue;
    const std::string near = nearest_name(name, options);
    throw usage_error(
        fmt::format("unknown option {}{}", name, near.empty() ? "" : fmt::format(": did you mean {}?", near)),
        kSeeHelp);
  }
}

// Position of the first word that is neither an option nor an option's value, or the number of words.
std::size_t first_plain_word(const std::vector<std::string>& words) {
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (std::find(kValueOptions.begin(), kValueOptions.end(), words[i]) != kValueOptions.end()) {
      ++i;
    } else if (!is_option(words[i])) {
      return i;
    }
  }
  return words.size();
}

bool looks_like_file(const std::string& word) {
  std::error_code ignored;
  return word.ends_with(".toml") || word.find('/') != std::string::npos || std::filesystem::exists(word, ignored);
}

}  // namespace

Arguments parse_arguments(const std::vector<std::string>& arguments) {
  std::vector<std::string> words = arguments;
  check_options(words);
  Arguments parsed;
  const std::size_t plain = first_plain_word(words);
  const bool has = plain < words.size();
  const auto given = [&](std::string_view option) {
    return std::find(words.begin(), words.end(), option) != words.end();
  };
  if (given("--version")) {
    parsed.command = Arguments::Command::kVersion;
    return parsed;
  }
  if (given("--help") || given("-h")) {
    parsed.command = Arguments::Command::kHelp;
    if (has && words[plain] == "inspect") parsed.section = "inspect";
    return parsed;
  }
  if (!has) throw usage_error("no configuration file", "dtrain FILE.toml trains; " + std::string(kSeeHelp));
  if (std::find(kCommands.begin(), kCommands.end(), words[plain]) == kCommands.end()) {
    if (!looks_like_file(words[plain])) {
      const std::string near = nearest_name(words[plain], kCommands);
      throw usage_error(fmt::format("{} is neither a command nor a file{}", words[plain],
                                    near.empty() ? "" : fmt::format(": did you mean {}?", near)),
                        kSeeHelp);
    }
    words.insert(words.begin(), "train");
  } else {
    std::rotate(words.begin(), words.begin() + static_cast<std::ptrdiff_t>(plain),
                words.begin() + static_cast<std::ptrdiff_t>(plain) + 1);
  }

  CLI::App app("dtrain");
  app.set_help_flag();
  app.require_subcommand(1);
  std::string bind = "fair";
  const auto add_shared = [&](CLI::App* command) {
    command->set_help_flag();
    command->add_option("--set", parsed.overrides)->allow_extra_args(false);
    command->add_option("--bind", bind)->check(CLI::IsMember({"fair", "none"}));
  };
  CLI::App* train = app.add_subcommand("train");
  train->add_option("file", parsed.file)->required();
  add_shared(train);
  const auto add_uses_of_model = [&](CLI::App* command) {
    command->add_option("file", parsed.file)->required();
    command->add_option("--model", parsed.model);
    command->add_option("--data", parsed.data);
    command->add_option("--out", parsed.out);
    add_shared(command);
  };
  CLI::App* evaluate = app.add_subcommand("evaluate");
  add_uses_of_model(evaluate);
  CLI::App* predict = app.add_subcommand("predict");
  predict->add_flag("--unlabelled", parsed.unlabelled);
  add_uses_of_model(predict);
  CLI::App* prepare = app.add_subcommand("prepare");
  prepare->add_option("file", parsed.file)->required();
  add_shared(prepare);
  CLI::App* export_model = app.add_subcommand("export");
  CLI::Option* export_folder = export_model->add_option("folder", parsed.folder);
  export_model->add_option("--out", parsed.out);
  export_model->add_option("--dtype", parsed.dtype);
  export_model->add_option("--max-shard-size", parsed.max_shard_size);
  CLI::App* sweep = app.add_subcommand("sweep");
  sweep->add_option("file", parsed.file)->required();
  sweep->add_option("--ranks", parsed.ranks)->check(CLI::Range(1, 65536));
  add_shared(sweep);
  CLI::App* launch = app.add_subcommand("launch");
  launch->add_option("file", parsed.file)->required();
  launch->add_option("--ranks", parsed.ranks)->check(CLI::Range(1, 65536));
  launch->add_option("--max-restarts", parsed.max_restarts)->check(CLI::Range(0, 1000000));
  launch->add_option("--backoff", parsed.backoff)->check(CLI::Range(0.0, 3600.0));
  launch->add_option("--launcher", parsed.launcher)->check(CLI::IsMember({"mpirun", "srun"}));
  launch->add_option("--launcher-args", parsed.launcher_args);
  add_shared(launch);
  CLI::App* slurm = app.add_subcommand("slurm");
  slurm->add_option("file", parsed.file)->required();
  slurm->add_option("--nodes", parsed.slurm.nodes)->check(CLI::Range(1, 65536));
  slurm->add_option("--ranks-per-node", parsed.slurm.ranks_per_node)->check(CLI::Range(1, 1024));
  slurm->add_option("--job-name", parsed.slurm.name);
  slurm->add_option("--time", parsed.slurm.time);
  slurm->add_option("--partition", parsed.slurm.partition);
  slurm->add_option("--account", parsed.slurm.account);
  slurm->add_option("--gpus-per-node", parsed.slurm.gpus_per_node)->check(CLI::Range(0, 1024));
  slurm->add_option("--cpus-per-rank", parsed.slurm.cpus_per_rank)->check(CLI::Range(1, 4096));
  slurm->add_option("--sbatch", parsed.slurm.sbatch_options)->allow_extra_args(false);
  slurm->add_option("--max-restarts", parsed.max_restarts)->check(CLI::Range(0, 1000000));
  slurm->add_option("--out", parsed.out);
  slurm->add_flag("--submit", parsed.slurm.submit);
  add_shared(slurm);
  CLI::App* report = app.add_subcommand("report");
  CLI::Option* report_folder = report->add_option("folder", parsed.folder);
  report->add_option("--out", parsed.out);
  CLI::App* explain = app.add_subcommand("explain");
  CLI::Option* explain_folder = explain->add_option("folder", parsed.folder);
  CLI::App* inspect = app.add_subcommand("inspect");
  CLI::Option* inspect_folder = inspect->add_option("folder", parsed.folder);
  CLI::App* config = app.add_subcommand("config");
  CLI::Option* config_file = config->add_option("file", parsed.file);
  config->add_flag("--markdown", parsed.markdown);
  config->add_flag("--arguments", parsed.arguments_page);
  add_shared(config);
  CLI::App* doctor = app.add_subcommand("doctor");
  doctor->add_option("folder", parsed.folder);
  add_shared(doctor);
  CLI::App* help = app.add_subcommand("help");
  help->set_help_flag();
  help->add_option("section", parsed.section);
  try {
    std::reverse(words.begin(), words.end());  // CLI11 takes them from the back
    app.parse(words);
  } catch (const CLI::ParseError& error) {
    throw usage_error(error.what(), kSeeHelp);
  }
  parsed.bind = bind == "none" ? BindMode::kNone : BindMode::kFair;
  if (*train) parsed.command = Arguments::Command::kTrain;
  if (*evaluate) parsed.command = Arguments::Command::kEvaluate;
  if (*predict) parsed.command = Arguments::Command::kPredict;
  if (*prepare) parsed.command = Arguments::Command::kPrepare;
  if (*export_model) parsed.command = Arguments::Command::kExport;
  if (*sweep) parsed.command = Arguments::Command::kSweep;
  if (*launch) parsed.command = Arguments::Command::kLaunch;
  if (*slurm) parsed.command = Arguments::Command::kSlurm;
  if (*report) parsed.command = Arguments::Command::kReport;
  if (*explain) parsed.command = Arguments::Command::kExplain;
  if (*inspect) parsed.command = Arguments::Command::kInspect;
  if (*config) parsed.command = Arguments::Command::kConfig;
  if (*doctor) parsed.command = Arguments::Command::kDoctor;
  if (*help) parsed.command = Arguments::Command::kHelp;
  if (*config && !parsed.markdown && !parsed.arguments_page && config_file->empty()) {
    throw usage_error("config: no configuration file", "dtrain config FILE.toml prints the resolved file");
  }
  if (*export_model && (export_folder->empty() || parsed.out.empty())) {
    throw usage_error(export_folder->empty() ? "export: no folder" : "export: --out is missing",
                      "dtrain export FOLDER --out NEW, where FOLDER is the output_dir of a run or a checkpoint");
  }
  if (*report && report_folder->empty()) {
    throw usage_error("report: no folder", "dtrain report FOLDER, where FOLDER is the output_dir of a run");
  }
  if (*explain && explain_folder->empty()) {
    throw usage_error("explain: no folder", "dtrain explain FOLDER, where FOLDER is the output_dir of a run");
  }
  if (*inspect && inspect_folder->empty()) {
    throw usage_error("inspect: no folder",
                      "dtrain inspect FOLDER, where FOLDER is the output_dir of a run or a checkpoint");
  }
  return parsed;
}

std::string help_text(const std::string& section) {
  if (section == "inspect") return inspect_help();
  if (!section.empty()) return settings_help(section);
  std::string sections;
  for (const SettingSection& each : all_sections())
    sections += fmt::format("  dtrain help {:<12} {}\n", each.name, each.doc);
  sections += fmt::format("  dtrain help {:<12} {}\n", "hub", "Upload of the result to the Hugging Face Hub.");
  return fmt::format(
      R"(dtrain trains a transformer on one or many GPUs, or on CPUs, with the settings, numbers and files of the
Hugging Face Trainer and without Python.

Commands
  dtrain FILE.toml             train (also: dtrain train FILE.toml)
  dtrain evaluate FILE.toml    loss and metrics of the trained model (output_dir) on data.eval
  dtrain predict FILE.toml     its prediction for every example of data.eval, as JSON Lines
  dtrain prepare FILE.toml     tokenise the data now, so that a later run starts at once; prints a table of what is there
  dtrain export FOLDER --out NEW   the model of a run or checkpoint as a clean folder for the Hub, maybe in another type
  dtrain sweep FILE.toml       search the settings that [sweep] names: one run for each trial (docs/sweep.md)
  dtrain launch FILE.toml      train under a supervisor that starts a failed run again from its newest checkpoint
  dtrain slurm FILE.toml       write the batch script of a Slurm job that goes on after preemption and time limit
  dtrain report FOLDER         the run in this output_dir as one HTML page: charts, evaluations, settings
  dtrain explain FOLDER        after a stall (exit code 86): which rank held up the run in this output_dir, and where
  dtrain inspect FOLDER        verify the checkpoints of this output_dir and print what they are (dtrain inspect --help)
  dtrain config FILE.toml      print the resolved settings and where each value comes from; trains nothing
  dtrain config --markdown     print the page about all settings (docs/settings.md)
  dtrain config --arguments    print the page from TrainingArguments to dtrain (docs/from-trainingarguments.md)
  dtrain doctor [FOLDER]       check this machine or job: MPI, devices, cores, sums over ranks, disk
  dtrain help SECTION          explain the settings of one section

Options
  --set SECTION.KEY=VALUE      override a setting of the file; may be repeated
  --bind fair|none             fair (default): each rank of a node gets its share of the cores and as many threads;
                               none: leave cores as mpirun or srun set them
  --model FOLDER               evaluate, predict: another model: a checkpoint, or one of the Hub
  --data FILE                  evaluate, predict: other data than data.eval
  --out FILE                   evaluate: write the results as JSON; predict: default predictions.jsonl in output_dir;
                               report: default report.html in the folder; export: the new folder;
                               slurm: the script, default that of the file with .sbatch for .toml
  --dtype TYPE                 export: float32, float16 or bfloat16; default: as the weights are
  --max-shard-size SIZE        export: cut the weights into files of at most this size (5GB; 500MB, 2GiB)
  --ranks N                    sweep, launch: start each trial or attempt with mpirun -np N
  --max-restarts N             launch, slurm: attempts after the first (10)
  --backoff SECONDS            launch: pause before a restart (1); doubles while nothing new is published
  --launcher mpirun|srun       launch: what starts the ranks (mpirun); srun inside a job of Slurm
  --launcher-args "WORDS"      launch: words for it: --launcher-args="--hostfile hosts"
  --nodes N --ranks-per-node N slurm: the ranks (1 and 1)
  --gpus-per-node N            slurm: default one for each rank, none with training.use_cpu
  --cpus-per-rank N --time TIME --partition NAME --account NAME --job-name NAME    slurm: as sbatch understands them
  --sbatch=OPTION              slurm: any other option of sbatch; may be repeated
  --submit                     slurm: submit the script too
  --unlabelled                 predict: the data has no labels
  --version                    versions of dtrain and its libraries
  --help                       this text

Examples
  dtrain imdb.toml                                     one process: one GPU, or the CPU
  mpirun -np 4 dtrain imdb.toml                        four ranks on this machine, one GPU each
  srun --mpi=pmix dtrain imdb.toml                     the ranks of a Slurm job, one per GPU
  dtrain launch --ranks 4 --max-restarts 10 imdb.toml  as mpirun -np 4, and again when a rank was killed
  dtrain slurm imdb.toml --nodes 2 --ranks-per-node 4 --time 24:00:00 --submit     docs/clusters.md
  dtrain imdb.toml --set training.learning_rate=1e-4 --set training.output_dir=results/b
  dtrain imdb.toml --set training.resume_from_checkpoint=latest
  dtrain predict imdb.toml --data new.jsonl --unlabelled --out new-predicted.jsonl
  dtrain imdb.toml --set hub.push=true --set hub.repo=me/imdb    to the Hub; needs the program hf and a token
  dtrain export results/imdb --out imdb-bf16 --dtype bfloat16

Settings
{}  docs/settings.md lists them all. [training] has the names and defaults of transformers.TrainingArguments.

Exit codes, the same on all ranks
   0  done: the model and its files are in output_dir
  64  command line or settings are wrong
  65  data, tokenizer or weights are damaged or do not fit, or the loss is not a number
  66  ranks, or a run and the checkpoint it resumes, disagree
  70  internal error, or memory is short
  74  reading or writing failed (disk full)
  75  stopped by a signal (SIGTERM, SIGINT, SIGUSR2) with a checkpoint published: start again to go on
  86  stalled: a rank did not answer in time
)",
      sections);
}

}  // namespace dtrain
