"""What a run tells people: TensorBoard's own reader reads its event files, and `dtrain report` shows its log."""
import base64
import hashlib
import html.parser
import json
import math
import re

import pytest
from tensorboard.backend.event_processing import event_accumulator

import harness


def accumulator(folder):
    events = event_accumulator.EventAccumulator(str(folder), size_guidance=dict.fromkeys(("scalars", "tensors"), 0))
    events.Reload()
    return events


def scalars(events):
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def text(events, tag):
    return [event.tensor_proto.string_val[0].decode() for event in events.Tensors(f"{tag}/text_summary")]


def expected_scalars(records):
    """What the Trainer's TensorBoardCallback would write of the numbers in log.jsonl."""
    found = {}
    for record in records:
        for key, value in record.items():
            if key in ("step", "tokens", "input_elements") or isinstance(value, dict):
                continue
            tag = "eval/" + key[5:] if key.startswith("eval_") else "train/" + key
            found.setdefault(tag, []).append((record["step"], math.nan if value is None else value))
    return found


def assert_same_scalars(found, expected):
    assert found.keys() == expected.keys()
    for tag, points in expected.items():
        assert [step for step, _ in found[tag]] == [step for step, _ in points], tag
        # Event files hold single precision.
        assert [value for _, value in found[tag]] == pytest.approx([value for _, value in points], rel=1e-6, nan_ok=True), tag


def test_tensorboard_reads_scalars_and_texts(tmp_path, tiny_bert):
    recipe = harness.recipe(tmp_path, tiny_bert, training={"report_to": ["tensorboard"], "eval_strategy": "steps", "eval_steps": 3,
                                                           "save_strategy": "steps", "save_steps": 3})
    outcome = harness.run(recipe, ranks=2)
    assert outcome.code == 0, outcome.text
    out = tmp_path / "out"
    (file,) = (out / "runs").rglob("events*")
    assert re.fullmatch(r"events\.out\.tfevents\.\d{10}\..+\.\d+\.\d+", file.name)
    assert re.fullmatch(r"[A-Z][a-z]{2}\d\d_\d\d-\d\d-\d\d_.+", file.parent.name)
    events = accumulator(file.parent)
    assert_same_scalars(scalars(events), expected_scalars(harness.log_records(out)))
    assert text(events, "args") == ["```toml\n" + (out / "checkpoint-6" / "train.toml").read_text() + "```\n"]
    config = text(events, "model_config")[0].removeprefix("```json\n").removesuffix("```\n")
    assert json.loads(config) == json.loads((out / "config.json").read_text())
    assert events.SummaryMetadata("args/text_summary").plugin_data.plugin_name == "text"


def test_tensorboard_shows_what_is_not_a_number(tmp_path, tiny_bert):
    # The correlation with labels that are all the same is not defined.
    constant = tmp_path / "constant.jsonl"
    constant.write_text("".join(json.dumps({"text": f"word {i}", "label": 1.5}) + "\n" for i in range(8)))
    recipe = harness.recipe(tmp_path, tiny_bert, model={"num_labels": 1, "random_init": True}, data={"eval": str(constant), "eval_samples": None},
                            metrics={"compute": ["pearsonr", "mse"]}, training={"report_to": "all", "eval_strategy": "epoch", "max_steps": 2})
    outcome = harness.run(recipe)
    assert outcome.code == 0, outcome.text
    (file,) = (tmp_path / "out" / "runs").rglob("events*")
    found = scalars(accumulator(file.parent))
    assert math.isnan(found["eval/pearsonr"][0][1]) and not math.isnan(found["eval/mse"][0][1])
    assert_same_scalars(found, expected_scalars(harness.log_records(tmp_path / "out")))
    assert "not a number" in report(tmp_path / "out").words


def test_tensorboard_of_a_killed_and_resumed_run_is_one_curve(tmp_path, tiny_bert):
    recipe = harness.recipe(tmp_path, tiny_bert, training={"report_to": ["jsonl", "tensorboard"], "max_steps": 9, "save_strategy": "steps",
                                                           "save_steps": 3, "resume_from_checkpoint": "latest"},
                            reliability={"save_in_background": False})  # so that the kill comes after the save of step 3
    logs = tmp_path / "logs"
    assert harness.run(recipe, DTRAIN_FAULT="rank=0 point=step at=6 kind=kill", TENSORBOARD_LOGGING_DIR=str(logs)).code != 0
    killed = scalars(accumulator(logs))["train/loss"]
    assert [step for step, _ in killed] == [1, 2, 3, 4, 5], "a kill lost records"
    assert harness.run(recipe, TENSORBOARD_LOGGING_DIR=str(logs)).code == 0
    assert len(list(logs.iterdir())) == 2 and not (tmp_path / "out" / "runs").exists()
    events = scalars(accumulator(logs))
    assert [step for step, _ in events["train/loss"]] == list(range(1, 10)), "steps 4 and 5 were done again"
    assert_same_scalars(events, expected_scalars(harness.log_records(tmp_path / "out")))

    # Without the variable the newest folder in runs/ goes on.
    assert harness.run(recipe, "--set", "training.max_steps=10").code == 0
    assert harness.run(recipe, "--set", "training.max_steps=11").code == 0
    (folder,) = (tmp_path / "out" / "runs").iterdir()
    assert len(list(folder.iterdir())) == 2


class Page(html.parser.HTMLParser):
    """The parts of a report that the tests look at; refuses unbalanced tags."""
    VOID = {"meta", "path", "br"}

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.rows, self.scripts, self.titles, self.ids = [], [], [], [], [], []
        self.words = ""
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append([])
        if tag == "data":
            if "td" in self.open:
                self.rows[-1][-1].append(float(dict(attributes)["value"].replace("not a number", "nan")))
        self.ids += [value for name, value in attributes if name == "id"]

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}>"

    def handle_data(self, data):
        if "script" in self.open:
            self.scripts.append(data)
        elif "style" not in self.open:
            self.words += data
        if "title" in self.open and "svg" not in self.open:
            self.titles.append(data)
        if "th" in self.open:
            self.rows[-1][-1].append(data)

    def lines(self):
        return {attributes["data-name"]: attributes for _, attributes in self.tags if "data-name" in attributes}


def report(folder, *arguments):
    outcome = harness.run("report", folder, *arguments)
    assert outcome.code == 0, outcome.text
    content = (folder / "report.html").read_text(encoding="utf-8")
    page = Page(content)
    # Self-contained: nothing that a browser would fetch, and a policy that forbids it.
    assert not re.search(r"https?:|//[a-z]|@import|url\(", content), re.findall(r".{20}(?:https?:|@import|url\().{20}", content)
    for tag, attributes in page.tags:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base", "form"), tag
        assert not {"src", "href", "srcset", "action"} & attributes.keys(), (tag, attributes)
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
    assert len(page.scripts) == 1 and len(page.ids) == len(set(page.ids))
    (policy,) = [attributes["content"] for tag, attributes in page.tags if attributes.get("http-equiv") == "Content-Security-Policy"]
    digest = base64.b64encode(hashlib.sha256(page.scripts[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy and "default-src 'none'" in policy
    return page


def test_report_of_a_run(tmp_path, tiny_bert):
    recipe = harness.recipe(tmp_path, tiny_bert, training={"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2,
                                                           "learning_rate": 1e-3, "load_best_model_at_end": True, "metric_for_best_model": "loss"})
    assert harness.run(recipe, ranks=2).code == 0
    out = tmp_path / "out"
    page = report(out)
    records = harness.log_records(out)
    trained = [record for record in records if "loss" in record]
    evaluated = [record for record in records if "eval_loss" in record]
    # The table holds the numbers of the log, unrounded, and marks the best row.
    (header,) = [row for row in page.rows if row and row[0] == ["step"]]
    assert [cell[0] for cell in header] == ["step", "epoch", "train loss", "loss", "accuracy", "f1", "seconds"]
    rows = [row for row in page.rows if row and re.fullmatch(r"\d+( best)?", "".join(map(str, row[0])))]
    losses = {record["step"]: record["loss"] for record in trained}
    assert [[cell[0] for cell in row[1:]] for row in rows] == [
        [record["epoch"], losses[record["step"]], *(record[key] for key in ("eval_loss", "eval_accuracy", "eval_f1", "eval_runtime"))]
        for record in evaluated]
    best = json.loads((out / "run.json").read_text())["best_step"]
    assert ["".join(row[0]) for row in rows] == [f"{record['step']}{' best' if record['step'] == best else ''}" for record in evaluated]
    # Lines have the values of the log, and every chart a text in its stead.
    lines = page.lines()
    assert [float(value) for value in lines["training"]["data-values"].split()] == pytest.approx([record["loss"] for record in trained], rel=1e-5)
    for name in ("evaluation", "accuracy", "f1", "Learning rate", "Gradient norm", "tokens/s", "data", "forward", "backward", "reduce",
                 "optimizer", "fastest", "slowest"):
        assert name in lines, name
    assert lines["Learning rate"]["data-steps"] == "1 2 3 4 5 6"
    charts = [attributes for tag, attributes in page.tags if tag == "svg" and attributes.get("role") == "img"]
    assert len(charts) == 7
    for chart in charts:
        assert set(chart["aria-labelledby"].split()) <= set(page.ids)
    assert "training: 6 values" in page.words
    # Settings: those that differ, and all.
    assert [row for row in page.rows if row[0] == ["metric_for_best_model"]] and "\"accuracy\", \"f1:weighted\"" in page.words
    assert "done" in page.words and "exit code 0" in page.words and "of 6" in page.words
    assert page.titles == ["out · dtrain report"]
    # A page elsewhere, and a second run over it: the same files give the same page.
    before = (out / "report.html").read_bytes()
    assert harness.run("report", out, "--out", tmp_path / "b.html").code == 0
    assert (tmp_path / "b.html").read_bytes() == before
    # The ratio of the slowest rank to the mean is in the log, of both ranks.
    for record in trained:
        balance = record["rank_seconds"]
        assert 0 < balance["fastest"] <= balance["mean"] <= balance["slowest"]


EVIL = "</script><script>alert(1)</script>\"'><img src=x onerror=alert(1)>"


def write_log(folder, records, tail=""):
    folder.mkdir(exist_ok=True)
    (folder / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records) + tail, encoding="utf-8")


def test_report_escapes_what_a_log_holds(tmp_path):
    folder = tmp_path / "a<b>&"
    write_log(folder, [{"step": 1, "loss": 1.0, EVIL: 2.0, "seconds": {EVIL: 1.0}, "tokens": 5}, {"step": 2, "eval_loss": 1.0, f"eval_{EVIL}": 0.5}])
    (folder / "run.json").write_text(json.dumps({"state": EVIL, "step": 1, "exit": 70, "reason": EVIL, "suspects": [EVIL]}))
    (folder / "train.toml").write_text(f"[model]\npath = {json.dumps(EVIL)}\n")
    (folder / "config.json").write_text(json.dumps({"model_type": EVIL}))
    page = report(folder)  # asserts that there is one script, no image and no handler
    assert page.titles == ["a<b>& · dtrain report"]
    assert page.words.count(EVIL) >= 8


def test_report_of_a_killed_run(tmp_path):
    folder = tmp_path / "killed"
    write_log(folder, [{"step": step, "loss": 1 / step, "epoch": step / 9} for step in range(1, 4)], tail='{"step":4,"lo')
    (folder / "run.json").write_text(json.dumps({"state": "running", "step": 3}))
    page = report(folder)
    assert page.lines()["training"]["data-steps"] == "1 2 3"
    for words in ("cut short", "run.json says that the run goes on", "has not been evaluated", "settings are not known"):
        assert words in page.words, words
    # Lines that are no records in the middle are counted, and bytes that are not UTF-8 do no harm.
    (folder / "log.jsonl").write_bytes(b'{"step":1,"loss":1}\nnonsense\n{"step":2,"loss":"\xff"}\n[1]\n{"step":3,"loss":3}\n')
    page = report(folder)
    assert "3 lines of log.jsonl cannot be read and are left out, the first is line 2" in page.words


def test_report_shows_spikes_and_gaps_of_long_runs(tmp_path):
    folder = tmp_path / "long"
    records = [{"step": step, "loss": 0.5 + step % 7 / 100, "seconds": {"forward": 0.1}, "tokens": 10} for step in range(1, 50001)]
    records[31233]["loss"] = 123.25
    records[31233]["seconds"]["forward"] = 7.0
    for record in records[40000:40100]:
        record["loss"] = None
    write_log(folder, records)
    page = report(folder)
    lines = page.lines()
    steps, values = (lines["training"][key].split() for key in ("data-steps", "data-values"))
    assert len(steps) == len(values) <= 1002
    assert values[steps.index("31234")] == "123.25" and "-" in values
    # The line is broken where values are missing.
    faint = [attributes for _, attributes in page.tags if attributes.get("class") == "line faint c0" and attributes["data-name"] == "training"]
    assert faint[0]["d"].count("M") == 2
    assert "7000" in lines["forward"]["data-values"].split() or "7" in lines["forward"]["data-values"].split()
    assert "not a number in 100 of 50000 records, first at step 40001" in page.words
    assert "largest 123.25 at step 31,234" in page.words
    assert (folder / "report.html").stat().st_size < 400_000


def test_report_without_log_reads_the_state(tmp_path):
    folder = tmp_path / "state"
    folder.mkdir()
    history = [{"epoch": 1.0, "loss": 0.5, "step": 1}, {"epoch": 1.0, "eval_loss": 0.4, "step": 1}]
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": 1, "max_steps": 3, "epoch": 1.0, "log_history": history}))
    page = report(folder)
    assert page.lines()["training"]["data-values"] == "0.5" and "trainer_state.json" in page.words


def test_report_refuses_what_is_no_run(tmp_path):
    for arguments, words in (((tmp_path,), "holds no run"), ((tmp_path / "none",), "is no folder"), ((), "no folder")):
        outcome = harness.run("report", *arguments)
        assert outcome.code == 64 and words in outcome.error_lines()[0], outcome.text
    write_log(tmp_path / "run", [{"step": 1, "loss": 1.0}])
    outcome = harness.run("report", tmp_path / "run", "--out", tmp_path / "none" / "x.html")
    assert outcome.code == 64 and "there is no folder" in outcome.text
    (tmp_path / "run" / "run.json").write_text("{")
    assert "run.json" in report(tmp_path / "run").words
