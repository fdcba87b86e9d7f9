"""Every argument of the installed transformers is supported or refused with a reason, and those that are supported do what
they do there."""
import concurrent.futures
import json
import re
import subprocess

import pytest

import harness
from test_errors import USAGE, expect
from test_parity import first_rows, live_peer

# A batch that this much memory for data does not hold, in examples and MiB; half of the batch fits.
START, LIMIT = 2000, 400
PAGE = harness.ROOT / "docs" / "from-trainingarguments.md"


def fields():
    """{argument: default} of TrainingArguments and Seq2SeqTrainingArguments, as the installed transformers have them."""
    script = ("import dataclasses, enum, json, transformers\n"
              "def default(field):\n"
              "    value = field.default if field.default is not dataclasses.MISSING else field.default_factory()\n"
              "    return value.value if isinstance(value, enum.Enum) else value\n"
              "kinds = (transformers.TrainingArguments, transformers.Seq2SeqTrainingArguments)\n"
              "print(json.dumps({field.name: default(field) for kind in kinds for field in dataclasses.fields(kind)}))\n")
    printed = subprocess.run([harness.PYTHON, "-c", script], check=True, capture_output=True, text=True)
    return json.loads(printed.stdout.splitlines()[-1])


def rows():
    """{argument: (state, meaning)} of the page."""
    found = {}
    for line in PAGE.read_text(encoding="utf-8").split("## Arguments")[1].splitlines():
        match = re.fullmatch(r"\| `(\w+)` \| (.+?) \| (.+) \|", line)
        if match:
            found[match.group(1)] = (match.group(2), match.group(3))
    return found


def config(folder, name, value):
    """`dtrain config` of a file with this one argument."""
    folder.mkdir(exist_ok=True)
    path = harness.recipe(folder, "nowhere", training={name: value, "use_cpu": None, "disable_tqdm": None})
    return harness.run("config", path)


def test_the_page_covers_every_field():
    page, live = rows(), fields()
    assert len(live) > 115
    missing = [name for name in live if name not in page]
    assert not missing, f"neither supported nor refused: {missing}"
    for name, (state, _) in page.items():
        assert state == "supported" or state.startswith(("accepted: ", "refused", "warning", "old name")), name


def test_all_defaults_are_accepted_in_silence(tmp_path):
    defaults = {name: value for name, value in fields().items() if value is not None}
    path = harness.recipe(tmp_path, "nowhere", training={"use_cpu": None, "disable_tqdm": None} | defaults)
    outcome = harness.run("config", path)
    assert outcome.code == 0, outcome.text
    assert "warning" not in outcome.text.lower().replace('"warning"', "").replace("warning,", ""), outcome.text


def test_what_is_not_supported_is_refused_with_the_reason(tmp_path):
    refused = {name: reason for name, (state, reason) in rows().items() if state.endswith("refused")}
    assert len(refused) > 40
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        outcomes = pool.map(lambda name: config(tmp_path / name, name, "something else"), refused)
        for (name, reason), outcome in zip(refused.items(), outcomes):
            expect(outcome, USAGE, f"recipe.toml:", f"training.{name}: ", reason.replace("\\|", "|"))


def test_what_has_no_effect_gives_a_warning(tmp_path):
    warned = [name for name, (state, _) in rows().items() if state.endswith("warning")]
    assert "run_name" in warned and "length_column_name" in warned
    path = harness.recipe(tmp_path, "nowhere", training={name: "something else" for name in warned})
    outcome = harness.run("config", path)
    assert outcome.code == 0, outcome.text
    for name in warned:
        assert len([line for line in outcome.text.splitlines() if f"training.{name} has no effect" in line]) == 1, outcome.text


@pytest.mark.parametrize("accumulation", [1, 2])
def test_group_by_length_equals_the_peer(accumulation, tmp_path, tiny_bert):
    training = {"train_sampling_strategy": "group_by_length", "per_device_train_batch_size": 4, "max_steps": 12, "seed": 5,
                "gradient_accumulation_steps": accumulation, "learning_rate": 1e-3}
    if accumulation > 1:
        # The peer's classification head ignores the size of the step: its loss is of the sum of the micro-batches.
        training |= {"learning_rate": 0.0, "max_grad_norm": 0}
    data = first_rows(tmp_path)
    history, _ = live_peer(tmp_path, tiny_bert, data, training | {"per_device_eval_batch_size": 8})
    theirs = [record["loss"] for record in history if "loss" in record]
    outcome = harness.run(harness.recipe(tmp_path, tiny_bert, model={"dropout": 0}, training=training, data=data))
    assert outcome.code == 0, outcome.text
    ours = [record["loss"] for record in harness.log_records(tmp_path / "out") if "loss" in record]
    assert len(ours) == len(theirs) == 12
    assert ours == pytest.approx([loss / accumulation for loss in theirs], rel=1e-4)


def losses(folder):
    return [record["loss"] for record in harness.log_records(folder / "out") if "loss" in record]


def limited(path, mebibytes, ranks=None, victim=0):
    """dtrain with a limit on the memory of one rank."""
    line = (f'if [ "${{OMPI_COMM_WORLD_RANK:-0}}" = {victim} ]; then ulimit -d {mebibytes * 1024}; fi; '
            f'exec {harness.DTRAIN} {path}')
    line = ["bash", "-c", line]
    return harness.run_line(["mpirun", "--oversubscribe", "-np", str(ranks), *line] if ranks else line)


@pytest.mark.parametrize("ranks", [None, 2])
def test_auto_find_batch_size(ranks, tmp_path, tiny_bert):
    """A batch that does not fit is lowered by a tenth until it does, and the result is that of a run with the batch found."""
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    training = {"per_device_train_batch_size": START, "max_steps": 3, "save_strategy": "steps", "save_steps": 1, "learning_rate": 1e-3}
    # A copy of everything for a save in the background may be what does not fit any more.
    changes = {"tokenizer": {"max_length": 64}, "data": {"train_samples": None}, "reliability": {"save_in_background": False}}
    path = harness.recipe(first, tiny_bert, training=training | {"auto_find_batch_size": True}, **changes)
    outcome = limited(path, LIMIT, ranks, victim=1 if ranks else 0)
    assert outcome.code == 0, outcome.text
    found = [int(size) for size in re.findall(r"starting again with per_device_train_batch_size = (\d+)", outcome.text)]
    expected = [START]
    while len(expected) <= len(found):
        expected.append(int(expected[-1] * 0.9))
    assert found and found == expected[1:]
    assert outcome.text.count(f"out of memory on rank {1 if ranks else 0}") == len(found)

    path = harness.recipe(second, tiny_bert, training=training | {"per_device_train_batch_size": found[-1]}, **changes)
    outcome = harness.run(path, ranks=ranks)
    assert outcome.code == 0, outcome.text
    assert losses(first) == losses(second) and len(losses(first)) == 3
    # A resumed run goes on with the batch that was found, not with the file's.
    path = harness.recipe(first, tiny_bert, training=training | {"auto_find_batch_size": True, "max_steps": 4, "resume_from_checkpoint": "latest"},
                          **changes)
    outcome = harness.run(path, ranks=ranks)
    assert outcome.code == 0, outcome.text
    state = json.loads((first / "out" / "trainer_state.json").read_text())
    assert state["train_batch_size"] == found[-1] and state["global_step"] == 4


def test_without_auto_find_batch_size_a_batch_that_does_not_fit_is_an_error(tmp_path, tiny_bert):
    path = harness.recipe(tmp_path, tiny_bert, tokenizer={"max_length": 64}, data={"train_samples": None},
                          training={"per_device_train_batch_size": START, "max_steps": 3})
    outcome = limited(path, LIMIT)
    assert outcome.code == 70 and len(outcome.error_lines()) == 1, outcome.text
    assert "memory" in outcome.error_lines()[0] and "lower per_device_train_batch_size" in outcome.text


def peer_evaluation(model, data, **arguments):
    """eval_loss of a Trainer that only evaluates."""
    script = ("import json, sys, transformers\n"
              "model, path, arguments = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])\n"
              "tokenizer = transformers.AutoTokenizer.from_pretrained(model)\n"
              "rows = [json.loads(line) for line in open(path, encoding='utf-8')]\n"
              "texts = tokenizer([row['text'] for row in rows], truncation=True, max_length=32)\n"
              "data = [{key: texts[key][i] for key in texts.keys()} | {'label': row['label']} for i, row in enumerate(rows)]\n"
              "trainer = transformers.Trainer(\n"
              "    model=transformers.AutoModelForSequenceClassification.from_pretrained(model),\n"
              "    args=transformers.TrainingArguments(output_dir=sys.argv[4], use_cpu=True, report_to='none', disable_tqdm=True, **arguments),\n"
              "    eval_dataset=data, data_collator=transformers.DataCollatorWithPadding(tokenizer))\n"
              "print(json.dumps(trainer.evaluate()))\n")
    printed = subprocess.run([harness.PYTHON, "-c", script, str(model), data["eval"], json.dumps(arguments), str(model) + ".peer"],
                             capture_output=True, text=True)
    assert printed.returncode == 0, printed.stderr
    return json.loads(printed.stdout.splitlines()[-1])


def test_bf16_full_eval_equals_the_peer(tmp_path, tiny_bert):
    """Up to two steps of bfloat16: the Trainer rounds the loss itself to it, dtrain only what the model computes with."""
    data = first_rows(tmp_path)
    path = harness.recipe(tmp_path, tiny_bert, data=data, training={"max_steps": 12, "learning_rate": 3e-3})
    outcome = harness.run(path)
    assert outcome.code == 0, outcome.text

    def ours(*overrides):
        outcome = harness.run("evaluate", path, "--out", tmp_path / "r.json", *[word for each in overrides for word in ("--set", each)])
        assert outcome.code == 0, outcome.text
        return json.loads((tmp_path / "r.json").read_text())
    full, half = ours(), ours("training.bf16_full_eval=true", "training.skip_memory_metrics=false")
    assert full["eval_loss"] == pytest.approx(peer_evaluation(tmp_path / "out", data)["eval_loss"], rel=1e-5)
    assert half["eval_loss"] != full["eval_loss"]
    assert half["eval_loss"] == pytest.approx(peer_evaluation(tmp_path / "out", data, bf16_full_eval=True)["eval_loss"], abs=2**-7)
    assert half["eval_loss"] == pytest.approx(full["eval_loss"], rel=1e-2)
    assert [key for key in half if "_mem_" in key] == ["init_mem_cpu_alloc_delta", "init_mem_cpu_peaked_delta", "eval_mem_cpu_alloc_delta",
                                                       "eval_mem_cpu_peaked_delta", "before_init_mem_cpu"]
    assert not any("_mem_" in key for key in full)


def test_what_needs_a_gpu_is_refused_without_one(tmp_path, tiny_bert):
    for name in ("tf32", "fp16_full_eval"):
        expect(harness.run(harness.recipe(tmp_path, tiny_bert, training={name: True})), USAGE, f"training.{name} needs a", "GPU")


def test_printer(tmp_path, tiny_bert):
    """The lines of PrinterCallback, to be read by what reads the Trainer's."""
    path = harness.recipe(tmp_path, tiny_bert, callbacks={"printer": True}, training={"max_steps": 3, "log_level": "error"})
    printed = subprocess.run(harness.command(path, ranks=2), cwd=harness.ROOT, env=harness.environment(), capture_output=True, text=True)
    assert printed.returncode == 0, printed.stderr
    records = [eval(line) for line in printed.stdout.splitlines() if line.startswith("{")]  # as Python reads it
    logged = harness.log_records(tmp_path / "out")
    assert len(records) == len(logged)
    for record, line in zip(records, logged):
        keys = [key for key in line if key in record]
        assert keys == list(record) and "total_flos" not in record
        assert all(record[key] == f"{line[key]:.4g}" for key in keys if isinstance(line[key], float))
