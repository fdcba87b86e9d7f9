"""The way to the Hub: the real `hf` against a local server, the bytes that arrive, the model card, and failures that cost
nothing but a warning."""
import json
import os
import pathlib
import re
import subprocess
import threading
import time

import huggingface_hub
import pytest
import transformers
import yaml
from transformers import modelcard

import harness
import hub_server

BIN = pathlib.Path(harness.PYTHON).parent  # where hf is


def hub_environment(folder, token=hub_server.TOKEN, **extra):
    environment = {"PATH": f"{BIN}:{os.environ['PATH']}", "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0", "HF_HOME": str(folder / "hf"),
                   "HF_HUB_DISABLE_TELEMETRY": "1", "HF_TOKEN": token}
    return environment | extra


@pytest.fixture
def hub():
    with hub_server.serve() as (hub, environment):
        yield hub, environment
        assert not hub.failures, hub.failures


def pushing(**changes):
    return {"max_steps": 6, "save_strategy": "steps", "save_steps": 2, "eval_strategy": "steps", "eval_steps": 2, "logging_steps": 1,
            "push_to_hub": True, "hub_model_id": "someone/reviews"} | changes


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def warnings(outcome):
    return [line for line in outcome.text.splitlines() if "warning" in line]


def test_every_checkpoint_and_the_result_arrive_byte_for_byte(tmp_path, tiny_bert, hub):
    hub, environment = hub
    recipe = harness.recipe(tmp_path, tiny_bert, hub={"push": True, "repo": "someone/reviews", "private": True, "always_push": True},
                            training=pushing(push_to_hub=None, hub_model_id=None, report_to=["tensorboard"]))
    outcome = harness.run(recipe, ranks=2, **hub_environment(tmp_path), **environment)
    assert outcome.code == 0, outcome.text
    assert not warnings(outcome), outcome.text
    assert hub.repos["someone/reviews"]["visibility"] == "private"
    assert [commit["message"] for commit in hub.commits] == [
        "Training in progress, step 2", "Training in progress, step 4", "Training in progress, step 6", "End of training"]
    out = tmp_path / "out"
    for commit, step in zip(hub.commits, (2, 4, 6)):
        card = commit["files"].pop("README.md").decode()
        assert huggingface_hub.ModelCard(card).data.library_name == "transformers"
        wanted = contents(out / f"checkpoint-{step}")
        for name in ("optimizer.safetensors", "manifest.json", "train.toml"):
            del wanted[name]
        assert commit["files"] == wanted
    # The Hub keeps what is there: unchanged files may be left out of a commit.
    result = hub.files()
    local = contents(out)
    for name in ("README.md", "model.safetensors", "config.json", "tokenizer.json", "trainer_state.json", "eval_results.json",
                 "all_results.json", "train_results.json"):
        assert result[name] == local[name], name
    events = [name for name in local if name.startswith("runs/")]
    assert events and all(result[name] == local[name] for name in events)
    assert not {name for name in result if name not in local}
    assert json.loads((out / "run.json").read_text())["hub"] == "uploaded"
    assert not list(out.glob(".stage*"))
    # The token is nowhere.
    assert hub_server.TOKEN not in outcome.text
    assert not [name for name, content in local.items() if hub_server.TOKEN.encode() in content]


@pytest.mark.parametrize("strategy, folder", [("checkpoint", "last-checkpoint"), ("all_checkpoints", "checkpoint-6")])
def test_whole_checkpoints(strategy, folder, tmp_path, tiny_bert, hub):
    # The limit deletes a checkpoint while its upload may still be under way.
    hub, environment = hub
    recipe = harness.recipe(tmp_path, tiny_bert, training=pushing(hub_strategy=strategy, hub_always_push=True, save_total_limit=1,
                                                                  hub_revision="trial"))
    outcome = harness.run(recipe, **hub_environment(tmp_path), **environment)
    assert outcome.code == 0 and not warnings(outcome), outcome.text
    assert len(hub.commits) == 4 and {commit["revision"] for commit in hub.commits} == {"trial"}
    files = hub.files("trial")
    wanted = {f"{folder}/{name}": content for name, content in contents(tmp_path / "out" / "checkpoint-6").items()}
    assert {name: content for name, content in files.items() if name.startswith(folder + "/")} == wanted
    assert ("checkpoint-2/model.safetensors" in files) == (strategy == "all_checkpoints")
    assert files["model.safetensors"] == (tmp_path / "out" / "model.safetensors").read_bytes()


def test_only_the_end(tmp_path, tiny_bert, hub):
    hub, environment = hub
    recipe = harness.recipe(tmp_path, tiny_bert, training=pushing(hub_strategy="end", hub_model_id=None))
    outcome = harness.run(recipe, **hub_environment(tmp_path), **environment)
    assert outcome.code == 0 and not warnings(outcome), outcome.text
    assert [(commit["message"], commit["repo"]) for commit in hub.commits] == [("End of training", "someone/out")]


def test_training_does_not_wait_for_uploads(tmp_path, tiny_bert, hub):
    # The first upload is held until the last step is logged; the saves between are passed over.
    hub, environment = hub
    hub.hold.clear()
    recipe = harness.recipe(tmp_path, tiny_bert, training=pushing(eval_strategy="no"))
    log = tmp_path / "out" / "log.jsonl"
    seen = []

    def release():
        hub.arrived.wait(120)
        while not any('"train_runtime"' in line for line in log.read_text().splitlines()):
            time.sleep(0.02)
        seen.append(len(hub.commits))
        hub.hold.set()
    thread = threading.Thread(target=release)
    thread.start()
    outcome = harness.run(recipe, **hub_environment(tmp_path), **environment)
    thread.join()
    assert outcome.code == 0 and not warnings(outcome), outcome.text
    assert seen == [0]  # training was over before anything had arrived
    assert [commit["message"] for commit in hub.commits] == ["Training in progress, step 2", "End of training"]
    assert "step 4 is not uploaded" in outcome.text


@pytest.mark.parametrize("fault", ["refused", "nobody listens", "wrong token"])
def test_a_failed_upload_is_only_a_warning(fault, tmp_path, tiny_bert, hub):
    hub, environment = hub
    hub.refuse = 403
    if fault == "nobody listens":
        environment = {"HF_ENDPOINT": "http://127.0.0.1:9"}
    token = "hf_unknown" if fault == "wrong token" else hub_server.TOKEN
    recipe = harness.recipe(tmp_path, tiny_bert, training=pushing(save_steps=6))
    outcome = harness.run(recipe, ranks=2, **hub_environment(tmp_path, token), **environment)
    assert outcome.code == 0, outcome.text
    out = tmp_path / "out"
    lines = warnings(outcome)
    assert len(lines) == 2, outcome.text  # the checkpoint, the result
    assert "the upload of step 6 to someone/reviews failed (hf ended with 1: " in lines[0]
    assert "try again: " in lines[1]
    record = json.loads((out / "run.json").read_text())
    assert record["state"] == "done" and record["exit"] == 0 and record["hub"].startswith("failed: hf ended with 1: ")
    transformers.AutoModelForSequenceClassification.from_pretrained(out)
    assert not list(out.glob(".stage*"))
    assert token not in outcome.text and token not in (out / "hub.log").read_text()
    # The command does it once the fault is gone.
    hub.refuse = None
    if fault != "refused":
        return
    again = lines[1].split("try again: ")[1]
    subprocess.run(again, shell=True, check=True, env=harness.environment(**hub_environment(tmp_path), **environment), capture_output=True)
    assert hub.files()["model.safetensors"] == (out / "model.safetensors").read_bytes()


def test_a_stop_does_not_wait_for_the_upload(tmp_path, tiny_bert, hub):
    hub, environment = hub
    hub.hold.clear()
    recipe = harness.recipe(tmp_path, tiny_bert, training=pushing(save_strategy="no", resume_from_checkpoint="latest"))
    stopped = harness.run(recipe, timeout=60, **hub_environment(tmp_path), **environment, DTRAIN_FAULT="rank=0 point=step at=3 kind=preempt")
    assert stopped.code == 75, stopped.text
    assert not [line for line in warnings(stopped) if "upload" in line], stopped.text
    hub.hold.set()
    resumed = harness.run(recipe, **hub_environment(tmp_path), **environment)
    assert resumed.code == 0, resumed.text
    assert hub.commits[-1]["message"] == "End of training"
    assert not list((tmp_path / "out").glob(".stage*"))


def test_what_is_missing_is_found_at_the_start(tmp_path, tiny_bert):
    recipe = harness.recipe(tmp_path, tiny_bert, training=pushing())

    def refused(*arguments, **environment):
        outcome = harness.run(recipe, *arguments, **environment)
        assert outcome.code == 64, outcome.text
        assert not (tmp_path / "out").exists()
        return outcome.text
    without = hub_environment(tmp_path) | {"PATH": "/usr/bin:/bin"}
    assert "pip install huggingface_hub" in refused(**without)
    assert "hf auth login" in refused(**hub_environment(tmp_path, token=""))
    assert "HF_HUB_OFFLINE is set" in refused(**hub_environment(tmp_path) | {"HF_HUB_OFFLINE": "1"})
    secret = refused("--set", "training.hub_token=hf_secret", **hub_environment(tmp_path))
    assert "so that no file of a run holds it" in secret and "hf_secret" not in secret
    assert "cannot be the name of a repository" in refused("--set", "hub.repo=--delete=x", **hub_environment(tmp_path))


def make_cache(folder, tiny_bert):
    """A Hugging Face cache with a model, whose card states a license, and a data set."""
    cache = folder / "cache"
    for kind, files in (("models--someone--tiny", tiny_bert.iterdir()), ("datasets--someone--films", harness.IMDB.glob("*.jsonl"))):
        snapshot = cache / kind / "snapshots" / "abc"
        snapshot.mkdir(parents=True)
        for file in files:
            (snapshot / file.name).write_bytes(file.read_bytes())
        (cache / kind / "refs").mkdir()
        (cache / kind / "refs" / "main").write_text("abc")
    (cache / "models--someone--tiny" / "snapshots" / "abc" / "README.md").write_text("---\ntags: [x]\nlicense: apache-2.0\n---\n# Tiny\n")
    return cache


def test_the_model_card_says_what_the_trainers_says(tmp_path, tiny_bert):
    cache = make_cache(tmp_path, tiny_bert)
    films = "hf://datasets/someone/films/imdb-small-"
    recipe = harness.recipe(tmp_path, tiny_bert, model={"path": "someone/tiny"}, data={"train": films + "train.jsonl", "eval": films + "test.jsonl"},
                            metrics={"compute": ["accuracy", "f1:weighted", "matthews_correlation"]},
                            training={"max_steps": 6, "eval_strategy": "steps", "eval_steps": 2, "learning_rate": 1e-5, "warmup_steps": 0.5,
                                      "gradient_accumulation_steps": 2, "logging_steps": 4, "label_smoothing_factor": 0.1, "bf16": True})
    outcome = harness.run(recipe, ranks=2, HF_HUB_CACHE=str(cache))
    assert outcome.code == 0, outcome.text
    out = tmp_path / "out"
    text = (out / "README.md").read_text()
    history = json.loads((out / "trainer_state.json").read_text())["log_history"]
    _, lines, results = modelcard.parse_log_history(history)
    peer = modelcard.TrainingSummary(
        model_name="out", license="apache-2.0", tags=["generated_from_trainer", "dtrain"], finetuned_from="someone/tiny",
        tasks="text-classification", dataset=["someone/films"], dataset_tags=["someone/films"], dataset_metadata=[{}],
        eval_results=results, eval_lines=lines)
    metadata = yaml.safe_load(text.split("---\n")[1])
    assert metadata == peer.create_metadata()
    assert metadata["model-index"][0]["results"][0]["metrics"][0]["value"] == results["Accuracy"]
    # The file of the state has its keys sorted, the Trainer's own history as they were logged.
    header = next(line for line in text.splitlines() if line.startswith("| Training Loss"))
    columns = [name.strip() for name in header.strip("|").split("|")]
    assert columns[:4] == ["Training Loss", "Epoch", "Step", "Validation Loss"] and set(columns) == set(lines[0])
    lines = [{name: line[name] for name in columns} for line in lines]
    assert len(lines) == 3 and modelcard.make_markdown_table(lines) in text
    for name, value in results.items():
        assert f"- {name}: {modelcard._maybe_round(value)}\n" in text
    card = huggingface_hub.ModelCard.load(out / "README.md")
    assert card.data.base_model == "someone/tiny" and card.data.license == "apache-2.0" and card.data.datasets == ["someone/films"]
    assert {result.metric_type for result in card.data.eval_results} == {"accuracy", "f1", "matthews_correlation"}
    # The same hyperparameters under the same names.
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path / "peer"), max_steps=6, learning_rate=1e-5, warmup_steps=0.5, gradient_accumulation_steps=2,
        per_device_train_batch_size=4, per_device_eval_batch_size=8, label_smoothing_factor=0.1, use_cpu=True, report_to="none")

    class PeerTrainer:
        args = arguments
    theirs = modelcard.extract_hyperparameters_from_trainer(PeerTrainer)
    ours = dict(re.findall(r"^- (\w+): (.*)$", text.split("### Training hyperparameters")[1].split("###")[0], re.M))
    ranks = {"distributed_type": "multi-CPU", "num_devices": "2", "total_train_batch_size": "16", "total_eval_batch_size": "16"}
    assert "betas=(0.9,0.999) and epsilon=1e-08" in ours.pop("optimizer") and theirs.pop("optimizer")
    assert ours == {name: str(value) for name, value in theirs.items()} | ranks | {"mixed_precision_training": "bfloat16"}
    versions = text.split("### Framework versions")[1]
    assert re.search(r"- dtrain \d+\.\d+\.\d+\n- LibTorch 2\.\d+", versions)


def test_a_card_of_ones_own_stays(tmp_path, tiny_bert):
    recipe = harness.recipe(tmp_path, tiny_bert)
    assert harness.run(recipe, "--set", "training.max_steps=2").code == 0
    card = tmp_path / "out" / "README.md"
    generated = card.read_text()
    assert "results: []" in generated and "base_model" not in generated  # nothing of the Hub in it
    huggingface_hub.ModelCard(generated)
    overwrite = ("--set", "training.overwrite_output_dir=true", "--set", "training.max_steps=3")
    assert harness.run(recipe, *overwrite).code == 0
    assert "training_steps: 3" in card.read_text()
    card.write_text("# Mine\n")
    outcome = harness.run(recipe, *overwrite)
    assert outcome.code == 0 and "stays as it is" in outcome.text
    assert card.read_text() == "# Mine\n"
