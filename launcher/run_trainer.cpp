#include "launcher/run_trainer.h"

#include <string>
#include <vector>

#include "core/log.h"
#include "dist/run_job.h"
#include "launcher/arguments.h"
#include "launcher/job_setup.h"
#include "launcher/training_run.h"
#include "trainer/model_parameters.h"
#include "trainer/position.h"

namespace dtrain {

int run_trainer(int argc, char** argv, const std::function<TrainerParts(const Job&)>& make_parts,
                const std::function<void(Trainer&, const TrainOutcome&)>& after) {
  const auto work = [&](MpiSession& session) {
    const Arguments arguments = parse_arguments(std::vector<std::string>(argv + 1, argv + argc));
    if (arguments.command != Arguments::Command::kTrain) {
      throw usage_error("this program trains and has no other command",
                        fmt::format("{} FILE.toml [--set SECTION.KEY=VALUE]... [--bind fair|none]", argv[0]));
    }
    const TrainConfig config = agreed_config(arguments, session.world(), session.host(), Parts::kOwn);
    if (config.training.push_to_hub) {
      throw usage_error("training.push_to_hub: only the program dtrain uploads what it has trained",
                        "leave it out, and upload output_dir with hf upload");
    }
    TrainingHooks hooks;
    hooks.make_parts = make_parts;
    hooks.on_plan = [](Trainer& trainer) {
      log::info("model: {} with {} parameters", trainer.model().model_type(), trainable_elements(trainer.model()));
    };
    hooks.on_trained = after;
    return run_training(config, arguments, session, hooks);
  };
  return run_job(work, &current_step);
}

}  // namespace dtrain
