"""Records the fields of transformers.Seq2SeqTrainingArguments, which has those of TrainingArguments and its own, with their
defaults, in tests/data/training_arguments.json.

    python tests/golden/record_training_arguments.py     (transformers 5.17.0)
"""

import dataclasses
import enum
import json
import pathlib

import transformers

OUTPUT = pathlib.Path(__file__).parent.parent / "data" / "training_arguments.json"


def default_of(field):
    value = field.default if field.default is not dataclasses.MISSING else field.default_factory()
    return value.value if isinstance(value, enum.Enum) else value


def main():
    fields = dataclasses.fields(transformers.Seq2SeqTrainingArguments)
    record = {
        "transformers": transformers.__version__,
        "defaults": {field.name: default_of(field) for field in fields},
        "choices": {
            "lr_scheduler_type": [e.value for e in transformers.trainer_utils.SchedulerType],
            "optim": [e.value for e in transformers.training_args.OptimizerNames],
            "save_strategy": [e.value for e in transformers.trainer_utils.SaveStrategy],
            "eval_strategy": [e.value for e in transformers.trainer_utils.IntervalStrategy],
        },
    }
    OUTPUT.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
