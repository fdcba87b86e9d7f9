// docs/from-trainingarguments.md, from the tables of settings and of known names.
#include <map>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "configs/config_text.h"
#include "configs/known_names.h"
#include "configs/markdown_cell.h"

namespace dtrain {
namespace {

constexpr const char* kIntroduction =
    R"(# From TrainingArguments to dtrain

<!-- Generated from configs/. Regenerate: dtrain config --arguments > docs/from-trainingarguments.md -->

Every field of `transformers.TrainingArguments` and `Seq2SeqTrainingArguments` (5.17) is either a key of the same name under
`[training]`, or is refused when the run starts, with the reason below. None is ignored silently. The test
`tests/integration/test_arguments.py` compares this page with the fields of the installed transformers.

## The Trainer's own arguments

| `Trainer(...)` | dtrain |
| --- | --- |
| `model` | `model.path` and `model.task`; `model.random_init = true` for fresh weights |
| `model_init` | in C++: `TrainerParts::model_init` |
| `args` | `[training]`, below |
| `data_collator` | `data.collator` |
| `train_dataset`, `eval_dataset` | `data.train`, `data.eval`, `data.eval_fraction` |
| `processing_class` | `tokenizer.path` |
| `compute_metrics` | `metrics.compute` |
| `compute_loss_func` | a model of your own: its `forward` returns the loss |
| `callbacks` | `[callbacks]`; classes derived from `Callback` in C++ |
| `optimizers`, `optimizer_cls_and_kwargs` | `training.optim`, `training.optim_args`, `training.parameter_groups`; in C++: `TrainerParts::make_optimizer`, `make_schedule` |
| `preprocess_logits_for_metrics` | not needed: metrics are counted batch by batch, no logits pile up |
| `train(resume_from_checkpoint=...)` | `training.resume_from_checkpoint` |

## Defaults

The defaults are the Trainer's, written as TOML can: what is `None` there and has no default in `docs/settings.md` is a key that is not set.
`output_dir` is `"trainer_output"`, as `None` becomes there; `report_to` is always a list; `lr_scheduler_kwargs` is an empty table.

## Arguments

*supported*: the key does what the argument does. *accepted*: the listed values are what dtrain does anyway; any other one is refused, or has no
effect and gives a warning. *old name*: accepted with a warning that names the new key.

| argument | dtrain | meaning, or reason |
| --- | --- | --- |
)";

std::string codes(const std::vector<Json>& values) {
  std::vector<std::string> texts;
  for (const Json& value : values) {
    if (!value.is_null()) texts.push_back(fmt::format("`{}`", markdown_cell(toml_text(value))));
  }
  return fmt::format("{}", fmt::join(texts, ", "));
}

std::string unsupported_cell(const UnsupportedName& name) {
  std::vector<Json> accepted = {name.peer_default};
  accepted.insert(accepted.end(), name.accepted.begin(), name.accepted.end());
  const std::string values = codes(accepted);
  const char* const other = name.other == UnsupportedName::Other::kWarn ? "warning" : "refused";
  return values.empty() ? other : fmt::format("accepted: {}; else {}", values, other);
}

}  // namespace

std::string arguments_markdown() {
  std::map<std::string, std::string> rows;  // by argument
  for (const Setting& setting : all_settings()) {
    if (setting.section != "training" || setting.doc.starts_with("dtrain's own")) continue;
    std::string meaning = markdown_cell(setting.doc);
    if (const auto& missing = setting.constraint.known_elsewhere; !missing.empty()) {
      meaning += fmt::format(" Refused: {}.", codes({missing.begin(), missing.end()}));
    }
    rows[setting.key] = fmt::format("supported | {}", meaning);
  }
  for (const UnsupportedName& name : all_unsupported_names()) {
    rows[name.name] = fmt::format("{} | {}", unsupported_cell(name), markdown_cell(name.reason));
  }
  for (const Alias& alias : all_aliases()) {
    if (alias.section != "training") continue;  // the short names of [hub]
    rows[alias.old_name] = fmt::format("old name | now `{}`", alias.new_name);
  }
  std::string page = kIntroduction;
  for (const auto& [argument, row] : rows) page += fmt::format("| `{}` | {} |\n", argument, row);
  return page;
}

}  // namespace dtrain
